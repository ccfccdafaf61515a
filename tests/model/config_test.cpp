#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "model/parameters.h"
#include "model/rope_tables.h"

namespace lathe {
namespace {

// The fields of the released DeepSeek-V2-Lite that matter, in its spelling.
Json lite_config() {
  return Json::parse(R"({
    "architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "aux_loss_alpha": 0.001,
    "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 10944, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v2", "moe_intermediate_size": 1408,
    "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false,
    "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
    "pretraining_tp": 1, "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
                     "original_max_position_embeddings": 4096, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": true,
    "tie_word_embeddings": false, "topk_group": 1, "topk_method": "greedy", "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1", "use_cache": true, "v_head_dim": 128, "vocab_size": 102400})",
                     "lite");
}

TEST(Config, ReleasedLiteIsRead) {
  const ModelConfig config = parse_model_config(lite_config(), "lite");
  EXPECT_FALSE(config.q_lora_rank.has_value());
  EXPECT_NEAR(config.softmax_scale, 0.1147213868, 1e-9);
  EXPECT_NEAR(rope_attention_factor(config.rope), 1.0, 1e-12);
  const ParameterLayout layout(config);
  EXPECT_EQ(layout.total_parameters(), 15'706'484'224);  // as the model card's files add up
}

TEST(Config, ExportReadsBackEqual) {
  const ModelConfig config = parse_model_config(lite_config(), "lite");
  const Json once = model_config_json(config);
  EXPECT_EQ(once, model_config_json(parse_model_config(once, "again")));
}

TEST(Config, NewSpellingGivesTheSameModel) {
  Json json = lite_config();
  Json rope = *json.find("rope_scaling");
  rope.set("rope_type", "yarn");
  rope.set("type", Json());
  rope.set("rope_theta", 10000.0);
  json.set("rope_scaling", Json());
  json.set("rope_theta", Json());
  json.set("rope_parameters", rope);
  const ModelConfig config = parse_model_config(json, "new");
  const ModelConfig released = parse_model_config(lite_config(), "lite");
  EXPECT_EQ(config.softmax_scale, released.softmax_scale);
  EXPECT_EQ(make_rope_tables(config, 50).sin, make_rope_tables(released, 50).sin);
}

TEST(Config, OverriddenScaleIsExportedWithoutMscale) {
  const ModelConfig config = parse_model_config(lite_config(), "lite", {.softmax_scale = 1.0 / std::sqrt(192.0)});
  const ModelConfig again = parse_model_config(model_config_json(config), "again");
  EXPECT_NEAR(again.softmax_scale, 1.0 / std::sqrt(192.0), 1e-15);
  EXPECT_EQ(make_rope_tables(config, 50).cos, make_rope_tables(again, 50).cos);
}

struct Refusal {
  const char* field;
  const char* value;
  const char* says;  // part of the message
};

TEST(Config, Refusals) {
  constexpr Refusal kRefusals[] = {
      {"num_key_value_heads", "8", "num_key_value_heads is 8, num_attention_heads 16"},
      {"num_attention_heads", "12", "must be equal"},
      {"hidden_size", "2047", "not a multiple of num_attention_heads"},
      {"hidden_size", "-2048", "hidden_size is -2048"},
      {"hidden_size", "2048.5", "hidden_size is 2048.5"},
      {"hidden_size", "1e300", "expected a whole number"},
      {"hidden_size", "9223372036854775807", "hidden_size is 9223372036854775807"},
      {"vocab_size", "\"many\"", "vocab_size is \"many\""},
      {"kv_lora_rank", "511", "is odd"},
      {"qk_rope_head_dim", "63", "rope turns pairs"},
      {"num_experts_per_tok", "null", "num_experts_per_tok is not set"},
      {"num_experts_per_tok", "65", "at most 64"},
      {"moe_layer_freq", "2", "moe_layer_freq is 2"},
      {"scoring_func", "\"sigmoid\"", "scoring_func is \"sigmoid\""},
      {"n_shared_experts", "null", "n_shared_experts is null"},
      {"n_routed_experts", "null", "n_routed_experts is null"},
      {"norm_topk_prob", "true", "model.norm_topk_prob"},
      {"topk_method", "\"noaux_tc\"", "topk_method is \"noaux_tc\""},
      {"model_type", "\"llama\"", "model_type is \"llama\""},
      {"hidden_act", "\"gelu\"", "hidden_act is \"gelu\""},
      {"attention_dropout", "0.1", "attention_dropout is 0.1"},
      {"rms_norm_eps", "-1e-6", "rms_norm_eps is -1e-06"},
      {"bos_token_id", "102400", "bos_token_id is 102400"},
      {"a_new_field", "1", "unknown field a_new_field"},
      {"rope_scaling", R"({"type": "yarn", "factor": 40, "mscale": 0.707})", "only one of mscale"},
      {"rope_scaling", R"({"type": "llama3", "factor": 8})", "rope_type is \"llama3\""},
      {"rope_scaling", R"({"type": "yarn", "factor": 40, "beta": 1})", "unknown field beta"},
      {"rope_scaling", R"({"type": "yarn", "factor": 0.5})", "factor is 0.5"},
  };
  for (const Refusal& refusal : kRefusals) {
    Json json = lite_config();
    json.set(refusal.field, Json::parse(refusal.value, "value"));
    try {
      parse_model_config(json, "config.json");
      ADD_FAILURE() << refusal.field << " = " << refusal.value << " was accepted";
    } catch (const InputError& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find(refusal.says), std::string::npos) << refusal.field << ": " << what;
      EXPECT_TRUE(what.starts_with("config.json")) << what;
    }
  }
}

TEST(Config, NormTopkProbAsTold) {
  Json json = lite_config();
  json.set("norm_topk_prob", true);
  EXPECT_FALSE(parse_model_config(json, "c", {.norm_topk_prob = "ignore"}).normalize_topk_prob);
  EXPECT_TRUE(parse_model_config(json, "c", {.norm_topk_prob = "normalize"}).normalize_topk_prob);
}

// V2-Lite's YaRN ramp runs from dimension 10 to 23 (docs/numerics.md).
TEST(RopeTables, YarnLeavesFastDimensionsAndStretchesSlowOnes) {
  const ModelConfig config = parse_model_config(lite_config(), "lite");
  const RopeTables tables = make_rope_tables(config, 2);
  for (std::size_t i = 0; i < 32; ++i) {
    const double plain = std::pow(10000.0, -static_cast<double>(2 * i) / 64.0);
    const double angle = std::atan2(static_cast<double>(tables.sin[32 + i]), static_cast<double>(tables.cos[32 + i]));
    if (i <= 10) {
      EXPECT_NEAR(angle, plain, 1e-6 * plain) << i;
    } else if (i >= 23) {
      EXPECT_NEAR(angle, plain / 40, 1e-6 * plain) << i;
    } else {
      EXPECT_LT(angle, plain);
      EXPECT_GT(angle, plain / 40);
    }
  }
}

}  // namespace
}  // namespace lathe
