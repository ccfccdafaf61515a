// A DeepSeek-V2 model as Hugging Face's config.json describes it (docs/numerics.md says which fields mean what).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "ops/router.h"

namespace lathe {

struct RopeConfig {
  double theta = 10000.0;
  bool yarn = false;
  // YaRN (Peng et al., 2023) only:
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0;          // 0: not given
  double mscale_all_dim = 0;  // 0: not given
  std::optional<double> attention_factor;
  std::int64_t original_max_position = 0;
  bool truncate = true;
};

struct ModelConfig {
  std::int64_t vocab_size = 102400;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;  // of a dense layer's MLP
  std::int64_t num_layers = 32;
  std::int64_t num_heads = 32;
  std::int64_t max_position_embeddings = 2048;
  double initializer_range = 0.02;
  double rms_norm_eps = 1e-6;
  std::optional<std::int64_t> pad_token_id;
  std::optional<std::int64_t> bos_token_id = 1;
  std::vector<std::int64_t> eos_token_ids = {2};
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  std::int64_t first_k_dense_replace = 0;
  std::int64_t kv_lora_rank = 512;
  std::optional<std::int64_t> q_lora_rank = 1536;
  std::int64_t qk_nope_head_dim = 128;
  std::int64_t qk_rope_head_dim = 64;
  std::int64_t v_head_dim = 128;
  std::int64_t num_routed_experts = 64;
  std::int64_t num_shared_experts = 2;
  std::int64_t num_experts_per_tok = 0;
  std::int64_t moe_intermediate_size = 1407;
  ops::TopkMethod topk_method = ops::TopkMethod::greedy;
  std::int64_t num_groups = 1;
  std::int64_t topk_group = 1;
  double routed_scaling_factor = 1.0;
  bool norm_topk_prob = false;       // as the file says; exported again
  bool normalize_topk_prob = false;  // what the model does
  RopeConfig rope;
  double softmax_scale = 0;  // in effect

  std::int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  std::int64_t shared_intermediate_size() const { return moe_intermediate_size * num_shared_experts; }
  bool is_dense(std::int64_t layer) const { return layer < first_k_dense_replace; }
};

// What run.toml may say about a config (its [model] table).
struct ModelConfigOptions {
  std::string norm_topk_prob = "refuse";  // refuse | ignore | normalize
  double softmax_scale = 0;               // 0: from the config
};

// Throws InputError naming `source`, the field, its value and what is allowed.
ModelConfig parse_model_config(const Json& json, const std::string& source, const ModelConfigOptions& options = {});
// Reads `path`: a config.json, or a folder that holds one.
ModelConfig read_model_config(const std::filesystem::path& path, const ModelConfigOptions& options = {});

// config.json in the spelling of the released files (rope_theta, rope_scaling), which every reader takes.
Json model_config_json(const ModelConfig& config);

}  // namespace lathe
