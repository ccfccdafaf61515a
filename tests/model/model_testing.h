// A model of any dtype in memory, and micro-batches for it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/register.h"
#include "device/cpu_device.h"
#include "model/model.h"

namespace lathe::testing {

class TestModel {
 public:
  TestModel(const ModelConfig& config, DType dtype, std::int64_t max_positions = 256)
      : config_(config),
        layout_(config_),
        device_(make_cpu_device()),
        scratch_(*device_, "scratch"),
        activations_(*device_, "activations"),
        ops_{.table = &op_table(DeviceKind::cpu), .device = device_.get(), .stream = {}, .scratch = &scratch_},
        memory_(*device_, 2 * bytes(dtype), "weights and gradients") {
    weights_ = TensorView::contiguous(memory_.data(), dtype, {layout_.size()});
    gradients_ =
        TensorView::contiguous(static_cast<std::byte*>(memory_.data()) + bytes(dtype), dtype, {layout_.size()});
    device_->fill_zero(weights_, {});
    device_->fill_zero(gradients_, {});
    model_ = std::make_unique<Model>(config_, layout_, ops_, activations_, weights_, gradients_, max_positions);
  }

  void initialize(double std, std::uint64_t seed) {
    for (const NamedTensor& tensor : layout_.named(weights_)) initialize_parameter(config_, tensor, std, seed);
  }

  const ParameterLayout& layout() const { return layout_; }
  const TensorView& weights() const { return weights_; }
  const TensorView& gradients() const { return gradients_; }
  Arena& activations() { return activations_; }
  Device& device() { return *device_; }
  Model& operator*() { return *model_; }
  Model* operator->() { return model_.get(); }

 private:
  std::size_t bytes(DType dtype) const { return static_cast<std::size_t>(layout_.size()) * size_of(dtype); }

  ModelConfig config_;
  ParameterLayout layout_;
  std::unique_ptr<Device> device_;
  Arena scratch_;
  Arena activations_;
  ops::Context ops_;
  Buffer memory_;
  TensorView weights_;
  TensorView gradients_;
  std::unique_ptr<Model> model_;
};

// Owns the memory of a micro-batch.
struct TestBatch {
  // `tokens` and `targets`: `count` sequences one after another.
  TestBatch(std::vector<std::int32_t> tokens_of, std::vector<std::int32_t> targets_of, std::int64_t count)
      : tokens(std::move(tokens_of)), targets(std::move(targets_of)), positions(tokens.size()) {
    batch.batch = count;
    batch.sequence_length = static_cast<std::int64_t>(tokens.size()) / count;
    for (std::size_t i = 0; i < positions.size(); ++i)
      positions[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % batch.sequence_length);
    batch.tokens = view(tokens);
    batch.targets = view(targets);
    batch.positions = view(positions);
  }

  static TensorView view(std::vector<std::int32_t>& values) {
    return TensorView::contiguous(values.data(), DType::i32, {static_cast<std::int64_t>(values.size())});
  }

  std::vector<std::int32_t> tokens, targets, positions;
  MicroBatch batch;
};

// A small model with every kind of layer: dense and MoE, q_lora, biases.
inline ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 37;
  config.hidden_size = 12;
  config.intermediate_size = 10;
  config.num_layers = 2;
  config.num_heads = 2;
  config.first_k_dense_replace = 1;
  config.q_lora_rank = 6;
  config.kv_lora_rank = 8;
  config.qk_nope_head_dim = 4;
  config.qk_rope_head_dim = 4;
  config.v_head_dim = 3;
  config.attention_bias = true;
  config.mlp_bias = true;
  config.num_routed_experts = 6;
  config.num_shared_experts = 1;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 5;
  config.routed_scaling_factor = 1.5;
  config.softmax_scale = 0.35;
  return config;
}

}  // namespace lathe::testing
