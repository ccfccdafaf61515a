// A model in the memory of a device, ready to run: what training and every command that runs a model share.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/arena.h"
#include "model/config.h"
#include "model/model.h"
#include "model/parameters.h"
#include "ops/context.h"
#include "train/host_copy.h"

namespace lathe {

// Where to run: made by `apps`, which knows the backends.
struct Runtime {
  std::unique_ptr<Device> device;
  const ops::Table* table = nullptr;
  std::string reason;        // why this device
  DType dtype = DType::f32;  // of weights and activations: f32 or bf16
};

class Session {
 public:
  struct Options {
    bool gradients = false;
    bool masters = false;  // for training
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
  // fp32; where the weights are bf16, what they are rounded from: memory of its own, and none without Options::masters.
  const TensorView& masters() const { return masters_; }
  // fp32
  const TensorView& gradients() const { return gradients_; }
  // Fills weights and masters; the tensors that `read` is asked for are fp32 if there are masters.
  void fill_weights(const ReadTensor& read);
  // What memory is in use for, once a step has shown how much it takes.
  std::string describe_memory();

 private:
  ModelConfig config_;
  ParameterLayout layout_;
  Arena scratch_;
  Arena activations_;
  ops::Context ops_;
  Buffer weights_memory_;
  Buffer masters_memory_;
  Buffer gradients_memory_;
  TensorView weights_;
  TensorView masters_;
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
  MicroBatch upload(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, std::int64_t batch,
                    std::int64_t first_position, std::span<const std::int32_t> cu_seqlens);

  Session& session_;
  std::int64_t rows_;
  Buffer memory_;
  std::vector<std::int32_t> host_;  // the same, to be copied at once
};

}  // namespace lathe
