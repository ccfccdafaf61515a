#include "train/memory_plan.h"

#include <algorithm>

namespace lathe {
namespace {

std::string format_bytes(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value >= 1e9 ? fmt::format("{:.2f} GB", value * 1e-9) : fmt::format("{:.1f} MB", value * 1e-6);
}

// Elements a row that a layer keeps for its backward (model/layer.h, attention.h, moe.h, mlp.h name them).
std::int64_t kept_per_row(const ModelConfig& config, std::int64_t layer) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t heads = config.num_heads;
  const std::int64_t topk = config.num_experts_per_tok;
  std::int64_t count = 4 * hidden;  // normed, sum, normed2, mlp_out
  count += heads * config.qk_head_dim() + 2 * config.q_lora_rank.value_or(0);
  count += 2 * config.kv_lora_rank + config.qk_rope_head_dim;  // kv_a, latent
  count += heads * (config.qk_nope_head_dim + config.v_head_dim);
  count += heads * (config.v_head_dim + 1);  // attention's output, lse
  if (config.is_dense(layer)) return count + 3 * config.intermediate_size;
  count += hidden + config.num_routed_experts + 3 * topk;  // output; scores, indices, weights, row_map
  count += topk * (2 * hidden + 3 * config.moe_intermediate_size);
  return count + 3 * config.shared_intermediate_size();
}

// Elements a row that the backward of a layer takes on top, at most.
std::int64_t backward_per_row(const ModelConfig& config) {
  const std::int64_t heads = config.num_heads;
  const std::int64_t attention =
      heads * (config.v_head_dim + config.qk_head_dim() + config.qk_nope_head_dim + config.v_head_dim) +
      2 * config.kv_lora_rank + config.qk_rope_head_dim + config.q_lora_rank.value_or(0);
  const std::int64_t moe = config.num_experts_per_tok * (config.moe_intermediate_size + 1) + config.num_routed_experts +
                           config.shared_intermediate_size();
  const bool any_dense = config.first_k_dense_replace > 0;
  const bool any_moe = config.first_k_dense_replace < config.num_layers;
  return config.hidden_size + attention + std::max(any_dense ? config.intermediate_size : 0, any_moe ? moe : 0);
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
    text += fmt::format("{} {}, ", category.name, format_bytes(category.bytes));
  return text + "total " + format_bytes(total());
}

MemoryPlan plan_memory(const ModelConfig& config, const ParameterLayout& layout, DType dtype, std::int64_t rows) {
  const auto element = static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t parameters = layout.size() * element;
  std::int64_t per_row = 3 * config.hidden_size + backward_per_row(config);  // embedding, final norm, gradient
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) per_row += kept_per_row(config, layer);
  MemoryPlan plan;
  plan.categories = {{"weights", parameters},
                     {"gradients", parameters},
                     {"optimizer state", 2 * parameters},
                     {"activations", rows * per_row * element}};
  return plan;
}

}  // namespace lathe
