#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "model/rope_tables.h"

namespace lathe {
namespace {

constexpr std::int64_t kMaxDimension = std::int64_t{1} << 31;

// Fields that say nothing about the computation, or nothing that is not said by another field.
constexpr std::array kIgnoredFields = std::to_array<std::string_view>({"_name_or_path",
                                                                       "architectures",
                                                                       "auto_map",
                                                                       "transformers_version",
                                                                       "ep_size",
                                                                       "dtype",
                                                                       "torch_dtype",
                                                                       "head_dim",
                                                                       "qk_head_dim",
                                                                       "aux_loss_alpha",
                                                                       "seq_aux",
                                                                       "use_cache",
                                                                       "pretraining_tp",
                                                                       "output_router_logits",
                                                                       "return_dict",
                                                                       "output_hidden_states",
                                                                       "output_attentions",
                                                                       "chunk_size_feed_forward",
                                                                       "is_encoder_decoder",
                                                                       "id2label",
                                                                       "label2id",
                                                                       "problem_type",
                                                                       "torchscript",
                                                                       "use_bfloat16",
                                                                       "pruned_heads",
                                                                       "tie_encoder_decoder",
                                                                       "is_decoder",
                                                                       "cross_attention_hidden_size",
                                                                       "add_cross_attention",
                                                                       "finetuning_task",
                                                                       "tokenizer_class",
                                                                       "prefix",
                                                                       "sep_token_id",
                                                                       "decoder_start_token_id",
                                                                       "task_specific_params",
                                                                       "tf_legacy_loss",
                                                                       "max_length",
                                                                       "min_length",
                                                                       "do_sample",
                                                                       "early_stopping",
                                                                       "num_beams",
                                                                       "num_beam_groups",
                                                                       "diversity_penalty",
                                                                       "temperature",
                                                                       "top_k",
                                                                       "top_p",
                                                                       "typical_p",
                                                                       "repetition_penalty",
                                                                       "length_penalty",
                                                                       "no_repeat_ngram_size",
                                                                       "encoder_no_repeat_ngram_size",
                                                                       "bad_words_ids",
                                                                       "num_return_sequences",
                                                                       "output_scores",
                                                                       "return_dict_in_generate",
                                                                       "forced_bos_token_id",
                                                                       "forced_eos_token_id",
                                                                       "remove_invalid_values",
                                                                       "exponential_decay_length_penalty",
                                                                       "suppress_tokens",
                                                                       "begin_suppress_tokens",
                                                                       "attn_implementation",
                                                                       "_attn_implementation",
                                                                       "_attn_implementation_autoset",
                                                                       "_experts_implementation"});

// Reads fields of one JSON object, remembers which were asked for, and names the file and field in every refusal.
class Fields {
 public:
  Fields(const Json& json, std::string source) : json_(json), source_(std::move(source)) {
    require(json.is_object(), "{}: expected an object, found {}", source_, json.type_name());
  }

  // Null counts as absent.
  const Json* find(std::string_view key) {
    known_.insert(std::string(key));
    const Json* value = json_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  bool is_null(std::string_view key) const {
    const Json* value = json_.find(key);
    return value != nullptr && value->is_null();
  }

  std::int64_t integer(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    require(value->is_integer(), "{}: {} is {}, expected a whole number", source_, key, shown(*value));
    const std::int64_t number = value->integer();
    require(number >= low && number <= high, "{}: {} is {}, allowed are {} to {}", source_, key, number, low, high);
    return number;
  }

  double number(std::string_view key, double fallback, double low, double high) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    require(value->is_number(), "{}: {} is {}, expected a number", source_, key, shown(*value));
    const double number = value->number();
    require(number >= low && number <= high, "{}: {} is {}, allowed are {} to {}", source_, key, number, low, high);
    return number;
  }

  bool boolean(std::string_view key, bool fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    require(value->is_bool(), "{}: {} is {}, expected true or false", source_, key, shown(*value));
    return value->boolean();
  }

  std::string string(std::string_view key, const std::string& fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    require(value->is_string(), "{}: {} is {}, expected a string", source_, key, shown(*value));
    return value->string();
  }

  void refuse_unknown() const {
    std::string unknown;
    for (const auto& member : json_.object()) {
      if (known_.contains(member.key) || std::ranges::find(kIgnoredFields, member.key) != kIgnoredFields.end())
        continue;
      unknown += (unknown.empty() ? "" : ", ") + member.key.substr(0, 80);
    }
    require(unknown.empty(), "{}: unknown field {}", source_, unknown.substr(0, 2000));
  }

  const std::string& source() const { return source_; }

  static std::string shown(const Json& value) {
    const std::string text = value.dump();
    return text.size() <= 60 ? text : text.substr(0, 57) + "...";
  }

 private:
  const Json& json_;
  std::string source_;
  std::set<std::string> known_;
};

std::vector<std::int64_t> parse_eos(Fields& fields, std::int64_t vocab_size) {
  const Json* value = fields.find("eos_token_id");
  if (value == nullptr)
    return fields.is_null("eos_token_id") ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{2};
  std::vector<std::int64_t> ids;
  const Json::Array items = value->is_array() ? value->array() : Json::Array{*value};
  for (const Json& item : items) {
    require(item.is_integer() && item.integer() >= -1 && item.integer() < vocab_size,
            "{}: eos_token_id is {}, allowed are ids below vocab_size {}", fields.source(), Fields::shown(*value),
            vocab_size);
    if (item.integer() >= 0) ids.push_back(item.integer());
  }
  return ids;
}

std::optional<std::int64_t> token_id(Fields& fields, std::string_view key, std::optional<std::int64_t> fallback,
                                     std::int64_t vocab_size) {
  if (fields.is_null(key)) {
    fields.find(key);
    return std::nullopt;
  }
  const std::int64_t id = fields.integer(key, fallback.value_or(-1), -1, std::numeric_limits<std::int32_t>::max());
  if (id < 0) return std::nullopt;
  // The default bos of a tiny vocabulary is no error: it is never used.
  if (id >= vocab_size && fields.find(key) == nullptr) return std::nullopt;
  require(id < vocab_size, "{}: {} is {}, allowed are ids below vocab_size {}", fields.source(), key, id, vocab_size);
  return id;
}

// Both spellings (docs/numerics.md): `rope_parameters`, or `rope_theta` with `rope_scaling`, which wins unless empty.
RopeConfig parse_rope(Fields& fields, std::int64_t max_position) {
  RopeConfig rope;
  rope.theta = fields.number("rope_theta", 10000.0, 1.0, 1e12);
  const Json* scaling = fields.find("rope_scaling");
  const Json* parameters = fields.find("rope_parameters");
  std::string name = "rope_scaling";
  if (scaling != nullptr && scaling->is_object() && scaling->object().empty()) scaling = nullptr;
  if (scaling == nullptr) {
    scaling = parameters;
    name = "rope_parameters";
  }
  if (scaling == nullptr) return rope;

  Fields dict(*scaling, fields.source() + ": " + name);
  rope.theta = dict.number("rope_theta", rope.theta, 1.0, 1e12);
  std::string type = dict.string("rope_type", "");
  const std::string old_type = dict.string("type", "");
  require(type.empty() || old_type.empty() || type == old_type, "{}: rope_type is {}, type is {}", dict.source(), type,
          old_type);
  if (type.empty()) type = old_type.empty() ? "default" : old_type;
  require(type == "default" || type == "yarn", "{}: rope_type is \"{}\", supported are default and yarn", dict.source(),
          type);
  dict.find("partial_rotary_factor");
  rope.yarn = type == "yarn";
  const double factor = dict.number("factor", 0.0, 0.0, 1e6);
  require(!rope.yarn || factor >= 1.0, "{}: factor is {}, YaRN takes 1 and more", dict.source(), factor);
  rope.factor = rope.yarn ? factor : 1.0;
  rope.beta_fast = dict.number("beta_fast", 32.0, 1e-6, 1e9);
  rope.beta_slow = dict.number("beta_slow", 1.0, 1e-6, 1e9);
  rope.mscale = dict.number("mscale", 0.0, 0.0, 1e3);
  rope.mscale_all_dim = dict.number("mscale_all_dim", 0.0, 0.0, 1e3);
  if (dict.find("attention_factor") != nullptr) rope.attention_factor = dict.number("attention_factor", 1.0, 1e-6, 1e6);
  rope.original_max_position = dict.integer("original_max_position_embeddings", max_position, 1, kMaxDimension);
  rope.truncate = dict.boolean("truncate", true);
  dict.refuse_unknown();
  require(!rope.yarn || (rope.mscale != 0) == (rope.mscale_all_dim != 0),
          "{}: only one of mscale ({}) and mscale_all_dim ({}) is set: transformers' own and DeepSeek's remote code "
          "differ there; set both or none",
          dict.source(), rope.mscale, rope.mscale_all_dim);
  return rope;
}

void parse_moe(Fields& fields, ModelConfig& config, const ModelConfigOptions& options) {
  const std::string& source = fields.source();
  for (const char* key : {"n_routed_experts", "n_shared_experts"})
    require(!fields.is_null(key), "{}: {} is null: models without experts are not supported", source, key);
  config.num_routed_experts = fields.integer("n_routed_experts", 64, 1, 65536);
  config.num_shared_experts = fields.integer("n_shared_experts", 2, 1, 65536);
  config.moe_intermediate_size = fields.integer("moe_intermediate_size", 1407, 1, kMaxDimension);
  config.routed_scaling_factor = fields.number("routed_scaling_factor", 1.0, 0.0, 1e6);
  const std::int64_t layer_freq = fields.integer("moe_layer_freq", 1, 0, kMaxDimension);
  require(layer_freq == 1, "{}: moe_layer_freq is {}, only 1 is supported", source, layer_freq);
  const std::string scoring = fields.string("scoring_func", "softmax");
  require(scoring == "softmax", "{}: scoring_func is \"{}\", only softmax is supported", source, scoring);

  const std::string method = fields.string("topk_method", "greedy");
  require(method == "greedy" || method == "gready" || method == "group_limited_greedy",
          "{}: topk_method is \"{}\", supported are greedy and group_limited_greedy", source, method);
  const std::int64_t experts = config.num_routed_experts;
  const std::int64_t groups = fields.integer("n_group", 1, 1, experts);
  const std::int64_t topk_group = fields.integer("topk_group", 1, 1, experts);
  std::int64_t selectable = experts;
  if (method == "group_limited_greedy") {
    config.topk_method = ops::TopkMethod::group_limited_greedy;
    config.num_groups = groups;
    config.topk_group = topk_group;
    require(experts % groups == 0, "{}: n_routed_experts {} is not a multiple of n_group {}", source, experts, groups);
    require(topk_group <= groups, "{}: topk_group {} is more than n_group {}", source, topk_group, groups);
    selectable = topk_group * (experts / groups);
  }
  require(fields.find("num_experts_per_tok") != nullptr, "{}: num_experts_per_tok is not set", source);
  config.num_experts_per_tok = fields.integer("num_experts_per_tok", 0, 1, 65536);
  require(config.num_experts_per_tok <= selectable, "{}: num_experts_per_tok is {}, at most {} experts can be chosen",
          source, config.num_experts_per_tok, selectable);

  config.norm_topk_prob = fields.boolean("norm_topk_prob", false);
  require(!config.norm_topk_prob || options.norm_topk_prob != "refuse",
          "{}: norm_topk_prob is true, which transformers ignores and DeepSeek's remote code obeys: say which with "
          "model.norm_topk_prob = \"ignore\" or \"normalize\"",
          source);
  config.normalize_topk_prob = config.norm_topk_prob && options.norm_topk_prob == "normalize";
}

void parse_attention(Fields& fields, ModelConfig& config) {
  const std::string& source = fields.source();
  config.num_heads = fields.integer("num_attention_heads", 32, 1, 65536);
  const std::int64_t kv_heads = fields.integer("num_key_value_heads", config.num_heads, 1, 65536);
  require(kv_heads == config.num_heads, "{}: num_key_value_heads is {}, num_attention_heads {}: they must be equal",
          source, kv_heads, config.num_heads);
  require(config.hidden_size % config.num_heads == 0, "{}: hidden_size {} is not a multiple of num_attention_heads {}",
          source, config.hidden_size, config.num_heads);
  config.kv_lora_rank = fields.integer("kv_lora_rank", 512, 1, kMaxDimension);
  config.q_lora_rank = fields.is_null("q_lora_rank")
                           ? std::nullopt
                           : std::optional(fields.integer("q_lora_rank", 1536, 1, kMaxDimension));
  fields.find("q_lora_rank");
  config.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 128, 1, 65536);
  config.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 64, 2, 65536);
  config.v_head_dim = fields.integer("v_head_dim", 128, 1, 65536);
  require(config.qk_rope_head_dim % 2 == 0, "{}: qk_rope_head_dim is {}, rope turns pairs", source,
          config.qk_rope_head_dim);
  require((config.kv_lora_rank + config.qk_rope_head_dim) % 2 == 0, "{}: kv_lora_rank {} + qk_rope_head_dim {} is odd",
          source, config.kv_lora_rank, config.qk_rope_head_dim);
  config.attention_bias = fields.boolean("attention_bias", false);
  const double dropout = fields.number("attention_dropout", 0.0, 0.0, 1.0);
  require(dropout == 0, "{}: attention_dropout is {}, only 0 is supported", source, dropout);
}

}  // namespace

ModelConfig parse_model_config(const Json& json, const std::string& source, const ModelConfigOptions& options) {
  Fields fields(json, source);
  const std::string type = fields.string("model_type", "");
  require(type == "deepseek_v2", "{}: model_type is \"{}\", supported is deepseek_v2", source, type);
  ModelConfig config;
  config.vocab_size = fields.integer("vocab_size", 102400, 1, std::numeric_limits<std::int32_t>::max());
  config.hidden_size = fields.integer("hidden_size", 4096, 1, kMaxDimension);
  config.intermediate_size = fields.integer("intermediate_size", 11008, 1, kMaxDimension);
  config.num_layers = fields.integer("num_hidden_layers", 32, 1, 65536);
  config.max_position_embeddings = fields.integer("max_position_embeddings", 2048, 1, kMaxDimension);
  config.initializer_range = fields.number("initializer_range", 0.02, 0.0, 1e3);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-6, 0.0, 1.0);
  const std::string act = fields.string("hidden_act", "silu");
  require(act == "silu", "{}: hidden_act is \"{}\", only silu is supported", source, act);
  config.pad_token_id = token_id(fields, "pad_token_id", std::nullopt, config.vocab_size);
  config.bos_token_id = token_id(fields, "bos_token_id", 1, config.vocab_size);
  config.eos_token_ids = parse_eos(fields, config.vocab_size);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.first_k_dense_replace = fields.integer("first_k_dense_replace", 0, 0, kMaxDimension);
  parse_attention(fields, config);
  parse_moe(fields, config, options);
  config.rope = parse_rope(fields, config.max_position_embeddings);
  fields.refuse_unknown();
  config.softmax_scale = options.softmax_scale != 0 ? options.softmax_scale : default_softmax_scale(config);
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& path, const ModelConfigOptions& options) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  const std::string source = file.string();
  return parse_model_config(Json::parse(read_text_file(file, std::size_t{16} << 20), source), source, options);
}

}  // namespace lathe
