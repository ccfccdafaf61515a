// AdamW over all parameters, with gradient clipping.
#pragma once

#include <filesystem>
#include <string>

#include "comm/communicator.h"
#include "model/parameters.h"
#include "ops/context.h"
#include "train/run_config.h"

namespace lathe {

class Optimizer {
 public:
  // The moments begin at zero. All references outlive the optimizer.
  Optimizer(const RunConfig::Optimizer& settings, const ParameterLayout& layout, const ops::Context& ops, DType dtype);

  // The norm over all gradients (each parameter once), before clipping.
  double gradient_norm(const TensorView& gradients) const;
  // The first parameter whose gradient holds a NaN or an infinity; empty if none does.
  std::string first_non_finite(const TensorView& gradients) const;

  // One update with gradients times `grad_scale`.
  void step(const TensorView& weights, const TensorView& gradients, double grad_scale, double lr);

  // Updates made so far: AdamW's bias correction counts them, so a skipped step does not.
  std::int64_t updates() const { return updates_; }

  // Writes and reads `optimizer-00001.safetensors`: `m.NAME` and `v.NAME` of every parameter.
  void save(const std::filesystem::path& folder) const;
  // Throws InputError naming the tensor that is missing or of the wrong shape.
  void load(const std::filesystem::path& folder, std::int64_t updates);

 private:
  std::vector<NamedTensor> state() const;

  RunConfig::Optimizer settings_;
  const ParameterLayout& layout_;
  const ops::Context& ops_;
  Buffer m_memory_;
  Buffer v_memory_;
  TensorView m_;
  TensorView v_;
  std::int64_t updates_ = 0;
};

}  // namespace lathe
