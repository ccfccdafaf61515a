#include "train/memory_plan.h"

#include <algorithm>

#include "core/log.h"
#include "model/model.h"

namespace lathe {
namespace {

// Elements a row, of the activations' dtype and of what is at least fp32.
struct Elements {
  std::int64_t plain = 0;
  std::int64_t wide = 0;

  std::int64_t bytes(DType dtype) const {
    return plain * static_cast<std::int64_t>(size_of(dtype)) +
           wide * static_cast<std::int64_t>(size_of(at_least_f32(dtype)));
  }
};

// What a layer keeps for its backward (model/layer.h, attention.h, moe.h, mlp.h name the tensors).
Elements kept_per_row(const ModelConfig& config, std::int64_t layer) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t heads = config.num_heads;
  const std::int64_t topk = config.num_experts_per_tok;
  Elements count;
  count.plain = 4 * hidden;  // normed, sum, normed2, mlp_out
  count.plain += heads * config.qk_head_dim() + 2 * config.q_lora_rank.value_or(0);
  count.plain += 2 * config.kv_lora_rank + config.qk_rope_head_dim;          // kv_a, latent
  count.plain += heads * (config.qk_nope_head_dim + 2 * config.v_head_dim);  // kv, the attention's output
  count.wide = 3 + (config.q_lora_rank ? 1 : 0) + heads;                     // rstd of the norms, lse
  if (config.is_dense(layer)) {
    count.plain += 3 * config.intermediate_size;
    return count;
  }
  count.plain +=
      hidden + topk * (2 * hidden + 3 * config.moe_intermediate_size) + 3 * config.shared_intermediate_size();
  count.wide += config.num_routed_experts + 3 * topk;  // scores, weights, indices, row_map
  return count;
}

// What the backward of a layer takes on top.
Elements backward_per_row(const ModelConfig& config, std::int64_t layer) {
  const std::int64_t heads = config.num_heads;
  Elements count;
  count.plain = config.hidden_size + heads * (2 * config.v_head_dim + config.qk_head_dim() + config.qk_nope_head_dim);
  count.plain += 2 * config.kv_lora_rank + config.qk_rope_head_dim + config.q_lora_rank.value_or(0);
  if (config.is_dense(layer)) {
    count.plain += config.intermediate_size;
    return count;
  }
  count.plain += config.num_experts_per_tok * config.moe_intermediate_size + config.shared_intermediate_size();
  count.wide = config.num_experts_per_tok + config.num_routed_experts;
  return count;
}

// The high-water mark of a forward and backward: everything kept, and then the logits' chunk or one layer's backward.
std::int64_t activations(const ModelConfig& config, const TrainingShape& shape) {
  const DType dtype = shape.dtype;
  const std::int64_t rows = shape.micro_batch_size * shape.sequence_length;
  Elements kept{.plain = 3 * config.hidden_size, .wide = 1};  // embedding, last norm, gradient
  std::int64_t backward = 0;
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const Elements of_layer = kept_per_row(config, layer);
    kept.plain += of_layer.plain;
    kept.wide += of_layer.wide;
    backward = std::max(backward, backward_per_row(config, layer).bytes(dtype));
  }
  const std::int64_t logits = head_chunk_rows(config.vocab_size, rows, shape.device) * config.vocab_size *
                              static_cast<std::int64_t>(size_of(at_least_f32(dtype)));
  return rows * kept.bytes(dtype) + std::max(logits, rows * backward);
}

// The most that an op takes while it runs: on the CPU a copy of its weights, transposed; on a GPU the attention
// backward's fp32 gradients of queries and of the shared keys, a head each.
std::int64_t scratch(const ModelConfig& config, const ParameterLayout& layout, const TrainingShape& shape) {
  const auto element = static_cast<std::int64_t>(size_of(shape.dtype));
  const std::int64_t rows = shape.micro_batch_size * shape.sequence_length;
  if (shape.device == DeviceKind::cuda)
    return rows * config.num_heads * (config.qk_head_dim() + config.qk_rope_head_dim) *
           static_cast<std::int64_t>(sizeof(float));
  std::int64_t largest = 0;
  for (const ParameterLayout::Block& block : layout.blocks()) {
    if (block.name == "embedding" && !config.tie_word_embeddings) continue;
    std::int64_t count = 1;
    for (const std::int64_t length : block.shape) count *= length;
    largest = std::max(largest, count);
  }
  return largest * element;
}

}  // namespace

std::int64_t MemoryPlan::total() const {
  std::int64_t sum = 0;
  for (const Category& category : categories) sum += category.bytes;
  return sum;
}

std::string MemoryPlan::describe() const {
  std::string text;
  for (const Category& category : categories)
    text += fmt::format("{} {}, ", category.name, format_bytes(static_cast<std::size_t>(category.bytes)));
  return text + "total " + format_bytes(static_cast<std::size_t>(total()));
}

TrainingShape training_shape(const RunConfig::Training& training, DeviceKind device, DType dtype) {
  return {.device = device,
          .dtype = dtype,
          .sequence_length = training.sequence_length,
          .micro_batch_size = training.micro_batch_size,
          .micro_batches = training.global_batch_size / training.micro_batch_size};
}

MemoryPlan plan_memory(const ModelConfig& config, const ParameterLayout& layout, const TrainingShape& shape) {
  const std::int64_t fp32 = layout.size() * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t rows = shape.micro_batch_size * shape.sequence_length;
  MemoryPlan plan;
  plan.categories.push_back({"weights", layout.size() * static_cast<std::int64_t>(size_of(shape.dtype))});
  if (shape.dtype == DType::bf16) plan.categories.push_back({"masters", fp32});
  plan.categories.push_back({"gradients", fp32});
  plan.categories.push_back({"moments", 2 * fp32});
  plan.categories.push_back({"activations", activations(config, shape)});
  plan.categories.push_back({"scratch", scratch(config, layout, shape)});
  plan.categories.push_back({"tokens", shape.micro_batches * (4 * rows + 1) * std::int64_t{sizeof(std::int32_t)}});
  plan.categories.push_back(
      {"rope tables", shape.sequence_length * config.qk_rope_head_dim * std::int64_t{sizeof(float)}});
  return plan;
}

}  // namespace lathe
