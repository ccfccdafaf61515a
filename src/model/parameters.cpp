#include "model/parameters.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <span>

#include "core/checked.h"
#include "core/philox.h"

namespace lathe {
namespace {

constexpr std::int64_t kAlignment = 32;  // elements: a block begins on a cache line in bf16 and in fp32

std::int64_t product(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (const std::int64_t length : shape) count = checked_mul(count, length);
  return count;
}

}  // namespace

// Appends blocks and their disk tensors in order.
class ParameterLayout::Builder {
 public:
  explicit Builder(ParameterLayout& layout) : layout_(layout) {}

  // A block that is one tensor on disk.
  void add(const std::string& name, const std::string& disk_name, std::vector<std::int64_t> shape) {
    open(name, shape);
    part(disk_name, std::move(shape));
  }

  // Begins a block; `part` calls that follow fill it.
  void open(const std::string& name, std::vector<std::int64_t> shape) {
    layout_.size_ = checked_add(layout_.size_, kAlignment - 1) / kAlignment * kAlignment;
    next_ = layout_.size_;
    const bool one_dimensional = shape.size() == 1;
    layout_.size_ = checked_add(layout_.size_, product(shape));
    layout_.total_ += product(shape);
    layout_.blocks_.push_back({name, std::move(shape), next_, one_dimensional});
  }

  void part(const std::string& disk_name, std::vector<std::int64_t> shape) {
    const std::int64_t count = product(shape);
    layout_.entries_.push_back({disk_name, std::move(shape), next_});
    next_ += count;
  }

  // gate_proj and up_proj, one below the other.
  void gate_up(const std::string& name, const std::string& disk, std::int64_t width, std::int64_t hidden, bool bias) {
    open(name, {2 * width, hidden});
    part(disk + "gate_proj.weight", {width, hidden});
    part(disk + "up_proj.weight", {width, hidden});
    if (!bias) return;
    open(name + "_bias", {2 * width});
    part(disk + "gate_proj.bias", {width});
    part(disk + "up_proj.bias", {width});
  }

 private:
  ParameterLayout& layout_;
  std::int64_t next_ = 0;
};

ParameterLayout::ParameterLayout(const ModelConfig& config)
    : num_layers_(config.num_layers), tied_(config.tie_word_embeddings) {
  Builder build(*this);
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t heads = config.num_heads;
  const std::int64_t latent = config.kv_lora_rank;
  const std::int64_t q_width = heads * config.qk_head_dim();

  build.add("embedding", "model.embed_tokens.weight", {config.vocab_size, hidden});
  std::int64_t idle = tied_ ? 0 : total_;  // parameters that a token does not meet
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string name = fmt::format("{}.", layer);
    const std::string disk = fmt::format("model.layers.{}.", layer);
    const std::string attention = disk + "self_attn.";
    build.add(name + "input_norm", disk + "input_layernorm.weight", {hidden});
    if (config.q_lora_rank) {
      const std::int64_t rank = *config.q_lora_rank;
      build.add(name + "q_a", attention + "q_a_proj.weight", {rank, hidden});
      if (config.attention_bias) build.add(name + "q_a_bias", attention + "q_a_proj.bias", {rank});
      build.add(name + "q_a_norm", attention + "q_a_layernorm.weight", {rank});
      build.add(name + "q_b", attention + "q_b_proj.weight", {q_width, rank});
    } else {
      build.add(name + "q_proj", attention + "q_proj.weight", {q_width, hidden});
    }
    const std::int64_t kv_width = latent + config.qk_rope_head_dim;
    build.add(name + "kv_a", attention + "kv_a_proj_with_mqa.weight", {kv_width, hidden});
    if (config.attention_bias) build.add(name + "kv_a_bias", attention + "kv_a_proj_with_mqa.bias", {kv_width});
    build.add(name + "kv_a_norm", attention + "kv_a_layernorm.weight", {latent});
    build.add(name + "kv_b", attention + "kv_b_proj.weight",
              {heads * (config.qk_nope_head_dim + config.v_head_dim), latent});
    build.add(name + "o_proj", attention + "o_proj.weight", {hidden, heads * config.v_head_dim});
    if (config.attention_bias) build.add(name + "o_bias", attention + "o_proj.bias", {hidden});
    build.add(name + "post_norm", disk + "post_attention_layernorm.weight", {hidden});

    std::string mlp = disk + "mlp.";
    std::int64_t width = config.intermediate_size;
    if (!config.is_dense(layer)) {
      const std::int64_t experts = config.num_routed_experts;
      const std::int64_t expert_width = config.moe_intermediate_size;
      build.add(name + "router", mlp + "gate.weight", {experts, hidden});
      build.open(name + "experts_gate_up", {experts, 2 * expert_width, hidden});
      for (std::int64_t expert = 0; expert < experts; ++expert) {
        build.part(fmt::format("{}experts.{}.gate_proj.weight", mlp, expert), {expert_width, hidden});
        build.part(fmt::format("{}experts.{}.up_proj.weight", mlp, expert), {expert_width, hidden});
      }
      build.open(name + "experts_down", {experts, hidden, expert_width});
      for (std::int64_t expert = 0; expert < experts; ++expert)
        build.part(fmt::format("{}experts.{}.down_proj.weight", mlp, expert), {hidden, expert_width});
      idle += (experts - config.num_experts_per_tok) * 3 * expert_width * hidden;
      mlp += "shared_experts.";
      width = config.shared_intermediate_size();
    }
    build.gate_up(name + "mlp_gate_up", mlp, width, hidden, config.mlp_bias);
    build.add(name + "mlp_down", mlp + "down_proj.weight", {hidden, width});
    if (config.mlp_bias) build.add(name + "mlp_down_bias", mlp + "down_proj.bias", {hidden});
  }
  build.add("norm", "model.norm.weight", {hidden});
  if (!tied_) build.add("lm_head", "lm_head.weight", {config.vocab_size, hidden});
  active_ = total_ - idle;
}

ModelParameters ParameterLayout::bind(const TensorView& flat) const {
  std::map<std::string_view, TensorView> views;
  for (const Block& block : blocks_) {
    const TensorView whole = flat.slice(0, block.offset, product(block.shape));
    views[block.name] = TensorView::contiguous(whole.data, flat.dtype, block.shape, flat.device);
  }
  const auto find = [&](std::string_view name) {
    const auto found = views.find(name);
    return found == views.end() ? TensorView{} : found->second;
  };

  ModelParameters model;
  model.embedding = find("embedding");
  model.norm = find("norm");
  model.lm_head = tied_ ? model.embedding : find("lm_head");
  for (std::int64_t index = 0; index < num_layers_; ++index) {
    const auto in_layer = [&](std::string_view name) { return find(fmt::format("{}.{}", index, name)); };
    LayerParameters layer;
    layer.input_norm = in_layer("input_norm");
    layer.q_proj = in_layer("q_proj");
    layer.q_a = in_layer("q_a");
    layer.q_a_bias = in_layer("q_a_bias");
    layer.q_a_norm = in_layer("q_a_norm");
    layer.q_b = in_layer("q_b");
    layer.kv_a = in_layer("kv_a");
    layer.kv_a_bias = in_layer("kv_a_bias");
    layer.kv_a_norm = in_layer("kv_a_norm");
    layer.kv_b = in_layer("kv_b");
    layer.o_proj = in_layer("o_proj");
    layer.o_bias = in_layer("o_bias");
    layer.post_norm = in_layer("post_norm");
    layer.router = in_layer("router");
    layer.experts_gate_up = in_layer("experts_gate_up");
    layer.experts_down = in_layer("experts_down");
    layer.mlp_gate_up = in_layer("mlp_gate_up");
    layer.mlp_gate_up_bias = in_layer("mlp_gate_up_bias");
    layer.mlp_down = in_layer("mlp_down");
    layer.mlp_down_bias = in_layer("mlp_down_bias");
    model.layers.push_back(layer);
  }
  return model;
}

std::vector<NamedTensor> ParameterLayout::named(const TensorView& flat) const {
  std::vector<NamedTensor> tensors;
  tensors.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    const TensorView whole = flat.slice(0, entry.offset, product(entry.shape));
    tensors.push_back({entry.name, TensorView::contiguous(whole.data, flat.dtype, entry.shape, flat.device)});
  }
  return tensors;
}

namespace {

// FNV-1a: a stream of random numbers a name, whatever else the model holds.
std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

template <typename T>
void initialize(const ModelConfig& config, const NamedTensor& tensor, double std, std::uint64_t seed) {
  T* data = tensor.view.as<T>();
  const std::int64_t count = tensor.view.numel();
  if (tensor.name.ends_with("norm.weight")) {
    std::fill_n(data, count, static_cast<T>(1.0F));
  } else if (tensor.name.ends_with(".bias")) {
    std::fill_n(data, count, static_cast<T>(0.0F));
  } else {
    const Philox random(seed, hash_name(tensor.name));
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i)
      data[i] = static_cast<T>(static_cast<float>(std * random.normal(static_cast<std::uint64_t>(i))));
    if (config.pad_token_id && tensor.name == "model.embed_tokens.weight")
      std::fill_n(data + *config.pad_token_id * config.hidden_size, config.hidden_size, static_cast<T>(0.0F));
  }
}

}  // namespace

void initialize_parameter(const ModelConfig& config, const NamedTensor& tensor, double std, std::uint64_t seed) {
  check(tensor.view.device == DeviceKind::cpu, "parameters are initialized on the host");
  switch (tensor.view.dtype) {
    case DType::f32:
      return initialize<float>(config, tensor, std, seed);
    case DType::f64:
      return initialize<double>(config, tensor, std, seed);
    case DType::bf16:
      return initialize<bf16>(config, tensor, std, seed);
    default:
      fail("parameters cannot be {}", name_of(tensor.view.dtype));
  }
}

}  // namespace lathe
