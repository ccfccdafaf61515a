#include "model/config.h"
#include "model/rope_tables.h"

namespace lathe {

Json model_config_json(const ModelConfig& config) {
  const auto optional = [](const std::optional<std::int64_t>& value) { return value ? Json(*value) : Json(); };
  Json json;
  json.set("architectures", Json::Array{"DeepseekV2ForCausalLM"});
  json.set("model_type", "deepseek_v2");
  json.set("vocab_size", config.vocab_size);
  json.set("hidden_size", config.hidden_size);
  json.set("intermediate_size", config.intermediate_size);
  json.set("num_hidden_layers", config.num_layers);
  json.set("num_attention_heads", config.num_heads);
  json.set("num_key_value_heads", config.num_heads);
  json.set("hidden_act", "silu");
  json.set("max_position_embeddings", config.max_position_embeddings);
  json.set("initializer_range", config.initializer_range);
  json.set("rms_norm_eps", config.rms_norm_eps);
  json.set("pad_token_id", optional(config.pad_token_id));
  json.set("bos_token_id", optional(config.bos_token_id));
  Json eos;
  if (config.eos_token_ids.size() == 1) {
    eos = config.eos_token_ids.front();
  } else {
    for (const std::int64_t id : config.eos_token_ids) eos.push_back(id);
  }
  json.set("eos_token_id", eos);
  json.set("tie_word_embeddings", config.tie_word_embeddings);
  json.set("attention_bias", config.attention_bias);
  json.set("attention_dropout", 0.0);
  json.set("mlp_bias", config.mlp_bias);
  json.set("first_k_dense_replace", config.first_k_dense_replace);
  json.set("kv_lora_rank", config.kv_lora_rank);
  json.set("q_lora_rank", optional(config.q_lora_rank));
  json.set("qk_nope_head_dim", config.qk_nope_head_dim);
  json.set("qk_rope_head_dim", config.qk_rope_head_dim);
  json.set("v_head_dim", config.v_head_dim);
  json.set("n_routed_experts", config.num_routed_experts);
  json.set("n_shared_experts", config.num_shared_experts);
  json.set("num_experts_per_tok", config.num_experts_per_tok);
  json.set("moe_intermediate_size", config.moe_intermediate_size);
  json.set("moe_layer_freq", 1);
  json.set("scoring_func", "softmax");
  const bool grouped = config.topk_method == ops::TopkMethod::group_limited_greedy;
  json.set("topk_method", grouped ? "group_limited_greedy" : "greedy");
  json.set("n_group", config.num_groups);
  json.set("topk_group", config.topk_group);
  json.set("routed_scaling_factor", config.routed_scaling_factor);
  json.set("norm_topk_prob", config.norm_topk_prob);

  // A softmax scale that is not the config's own: weights trained without mscale^2 (docs/numerics.md).
  RopeConfig rope = config.rope;
  if (rope.yarn && rope.mscale_all_dim != 0 && config.softmax_scale != default_softmax_scale(config)) {
    rope.attention_factor = rope_attention_factor(config.rope);
    rope.mscale = rope.mscale_all_dim = 0;
  }
  json.set("rope_theta", rope.theta);
  Json scaling;
  if (rope.yarn) {
    scaling.set("type", "yarn");
    scaling.set("factor", rope.factor);
    scaling.set("beta_fast", rope.beta_fast);
    scaling.set("beta_slow", rope.beta_slow);
    if (rope.mscale != 0) scaling.set("mscale", rope.mscale);
    if (rope.mscale_all_dim != 0) scaling.set("mscale_all_dim", rope.mscale_all_dim);
    if (rope.attention_factor) scaling.set("attention_factor", *rope.attention_factor);
    scaling.set("original_max_position_embeddings", rope.original_max_position);
    if (!rope.truncate) scaling.set("truncate", false);
  }
  json.set("rope_scaling", scaling);
  json.set("torch_dtype", "float32");
  json.set("use_cache", true);
  return json;
}

}  // namespace lathe
