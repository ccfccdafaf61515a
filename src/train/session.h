// A model in the memory of a device, ready to run: what training and every command that runs a model share.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "device/arena.h"
#include "model/config.h"
#include "model/model.h"
#include "model/parameters.h"
#include "ops/context.h"

namespace lathe {

// Where to run: made by `apps`, which knows the backends.
struct Runtime {
  std::unique_ptr<Device> device;
  const ops::Table* table = nullptr;
  std::string reason;  // why this device
};

class Session {
 public:
  struct Options {
    DType dtype = DType::f32;
    bool gradients = false;
    std::int64_t max_positions = 0;
  };

  // Allocates; the weights are to be filled by the caller.
  Session(const Runtime& runtime, const ModelConfig& config, const Options& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const ModelConfig& config() const { return config_; }
  const ParameterLayout& layout() const { return layout_; }
  const ops::Context& ops() const { return ops_; }
  Device& device() const { return *ops_.device; }
  Arena& activations() { return activations_; }
  Model& model() { return *model_; }
  const TensorView& weights() const { return weights_; }
  const TensorView& gradients() const { return gradients_; }
  void synchronize() const { ops_.device->synchronize(ops_.stream); }

 private:
  ModelConfig config_;
  ParameterLayout layout_;
  Arena scratch_;
  Arena activations_;
  ops::Context ops_;
  Buffer weights_memory_;
  Buffer gradients_memory_;
  TensorView weights_;
  TensorView gradients_;
  std::unique_ptr<Model> model_;
};

// Tokens of a micro-batch in device memory, reused from one to the next.
class MicroBatchBuffer {
 public:
  // Room for `rows` tokens.
  MicroBatchBuffer(Session& session, std::int64_t rows);

  // tokens, targets: batch * sequence_length each (targets may be empty). Positions count from `first_position` in
  // each sequence. The result lives until the next call.
  MicroBatch fill(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, std::int64_t batch,
                  std::int64_t first_position = 0);
  // The same with attention inside the ranges that cu_seqlens [n + 1] cuts the rows into.
  MicroBatch fill_packed(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                         std::int64_t batch, std::span<const std::int32_t> cu_seqlens);

 private:
  TensorView upload(const TensorView& room, std::span<const std::int32_t> values);

  Session& session_;
  Buffer memory_;
  TensorView tokens_, targets_, positions_, cu_seqlens_;
};

}  // namespace lathe
