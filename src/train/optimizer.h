// AdamW over all parameters, with gradient clipping.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/safetensors.h"
#include "model/parameters.h"
#include "ops/context.h"
#include "train/run_config.h"

namespace lathe {

class Optimizer {
 public:
  // The moments begin at zero. All references outlive the optimizer.
  Optimizer(const RunConfig::Optimizer& settings, const ParameterLayout& layout, const ops::Context& ops);

  // Adds the sum of the squares of all gradients (each parameter once), before clipping, to `out` [1] f64.
  void sum_of_squares(const TensorView& gradients, const TensorView& out) const;
  // The first parameter whose gradient holds a NaN or an infinity; empty if none does.
  std::string first_non_finite(const TensorView& gradients) const;

  // One update of the masters with gradients times `grad_scale`; all fp32. Weights of their own (bf16) are rounded from
  // them.
  void step(const TensorView& masters, const TensorView& weights, const TensorView& gradients, double grad_scale,
            double lr);

  // Updates made so far: AdamW's bias correction counts them, so a skipped step does not.
  std::int64_t updates() const { return updates_; }

  // Writes `optimizer-00001.safetensors`: `m.NAME` and `v.NAME` of every parameter, and `master.NAME` of masters that
  // the weights' file does not hold (none: it does).
  void save(const std::filesystem::path& folder, const TensorView& masters) const;
  // Reads the moments. Throws InputError naming the tensor that is missing or of the wrong shape.
  void load(const std::filesystem::path& folder, std::int64_t updates);

 private:
  std::vector<NamedTensor> moments() const;

  RunConfig::Optimizer settings_;
  const ParameterLayout& layout_;
  const ops::Context& ops_;
  Buffer memory_;
  TensorView m_;
  TensorView v_;
  std::int64_t updates_ = 0;
};

// The masters of a checkpoint whose weights are bf16, by name; none if its weights are fp32 themselves.
class SavedMasters {
 public:
  explicit SavedMasters(const std::filesystem::path& folder);
  bool any() const { return any_; }
  void read_into(const std::string& name, const TensorView& host) const;

 private:
  SafetensorsFile file_;
  bool any_;
};

}  // namespace lathe
