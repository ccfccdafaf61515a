#include "model/model.h"

#include <algorithm>

#include "core/checked.h"
#include "device/trace.h"
#include "model/rope_tables.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"

namespace lathe {

namespace {

// The logits' gradient as the products take it, in the activations' type: each row in the place of its logits, or of
// their front half.
TensorView gradient_in_place(const TensorView& logits, DType dtype) {
  TensorView gradient = logits;
  gradient.dtype = dtype;
  gradient.strides[0] *= static_cast<std::int64_t>(size_of(logits.dtype) / size_of(dtype));
  return gradient;
}

}  // namespace

std::int64_t head_chunk_rows(std::int64_t vocab_size, std::int64_t rows, DeviceKind device) {
  if (device == DeviceKind::cpu)
    return std::min(rows, std::clamp<std::int64_t>((std::int64_t{1} << 26) / vocab_size, 1, 1024));
  constexpr std::int64_t kTile = 128;  // of a product's rows
  const std::int64_t most = std::max((std::int64_t{1} << 29) / vocab_size / kTile, std::int64_t{1}) * kTile;
  const std::int64_t chunks = std::max(ceil_div(rows, most), std::int64_t{1});
  return std::min(rows, ceil_div(ceil_div(rows, chunks), kTile) * kTile);
}

Model::Model(const ModelConfig& config, const ParameterLayout& layout, const ops::Context& ops, Arena& activations,
             const TensorView& weights, const TensorView& gradients, std::int64_t max_positions)
    : config_(config), ops_(ops), activations_(activations), weights_(layout.bind(weights)) {
  if (gradients) gradients_ = layout.bind(gradients);
  gradients_.layers.resize(weights_.layers.size());

  const std::int64_t half = config.qk_rope_head_dim / 2;
  RopeTables tables = make_rope_tables(config, max_positions);
  const std::size_t bytes = tables.cos.size() * sizeof(float);
  rope_memory_ = Buffer(*ops.device, 2 * bytes, "rope tables");
  const DeviceKind kind = ops.device->kind();
  rope_.cos = TensorView::contiguous(rope_memory_.data(), DType::f32, {max_positions, half}, kind);
  rope_.sin = rope_.cos;
  rope_.sin.data = static_cast<std::byte*>(rope_memory_.data()) + bytes;
  ops.device->copy(rope_.cos, TensorView::contiguous(tables.cos.data(), DType::f32, {max_positions, half}), ops.stream);
  ops.device->copy(rope_.sin, TensorView::contiguous(tables.sin.data(), DType::f32, {max_positions, half}), ops.stream);
  ops.device->synchronize(ops.stream);

  for (std::size_t index = 0; index < weights_.layers.size(); ++index)
    layers_.push_back(std::make_unique<DeepseekLayer>(config_, ops_, weights_.layers[index], gradients_.layers[index],
                                                      rope_, static_cast<std::int64_t>(index), &balance_));
}

Model::~Model() = default;

TensorView Model::embed(const TensorView& tokens) {
  const TensorView x = activations_.take(weights_.embedding.dtype, {tokens.shape[0], config_.hidden_size});
  ops::embedding_forward(ops_, {.tokens = tokens, .table = weights_.embedding, .out = x});
  return x;
}

TensorView Model::final_norm(const TensorView& x, const TensorView& rstd) {
  const TensorView normed = activations_.take(x.dtype, {x.shape[0], x.shape[1]});
  ops::rms_norm_forward(ops_, {.x = x,
                               .residual = {},
                               .weight = weights_.norm,
                               .eps = config_.rms_norm_eps,
                               .out = normed,
                               .sum = {},
                               .rstd = rstd});
  return normed;
}

void Model::head_loss(const MicroBatch& batch, const TensorView& normed, double scale, const TensorView& loss,
                      const TensorView& dnormed) {
  const TraceRange range("head and loss");
  const std::int64_t rows = batch.rows();
  const std::int64_t chunk = head_chunk_rows(config_.vocab_size, rows, ops_.device->kind());
  const ArenaScope scope(activations_);
  const DType logits_dtype = at_least_f32(normed.dtype);
  const TensorView memory = activations_.take(logits_dtype, {chunk, config_.vocab_size});
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const TensorView logits = memory.slice(0, 0, count);
    const TensorView dlogits = dnormed ? gradient_in_place(logits, normed.dtype) : TensorView{};
    const TensorView x = normed.slice(0, begin, count);
    ops::linear_forward(ops_, {.x = x, .weight = weights_.lm_head, .bias = {}, .out = logits});
    ops::cross_entropy(ops_, {.logits = logits,
                              .targets = batch.targets.slice(0, begin, count),
                              .scale = scale,
                              .loss = loss,
                              .dlogits = dlogits});
    if (dnormed)
      ops::linear_backward(ops_, {.dout = dlogits,
                                  .x = x,
                                  .weight = weights_.lm_head,
                                  .dx = dnormed.slice(0, begin, count),
                                  .dweight = gradients_.lm_head,
                                  .dbias = {}});
  }
}

void Model::forward_backward(const MicroBatch& batch, double scale, const TensorView& loss,
                             const BalanceLoss& balance) {
  const TraceRange range("micro-batch");
  const ArenaScope scope(activations_);
  balance_ = &balance;
  LayerStates states;
  const TensorView x = embed(batch.tokens);
  const TensorView hidden = forward_layers(layers_, batch, x, activations_, states);
  const TensorView rstd = activations_.take(at_least_f32(x.dtype), {batch.rows()});
  const TensorView normed = final_norm(hidden, rstd);

  const TensorView gradient = activations_.take(x.dtype, {batch.rows(), config_.hidden_size});
  head_loss(batch, normed, scale, loss, gradient);
  ops::rms_norm_backward(ops_, {.dout = gradient,
                                .x = hidden,
                                .weight = weights_.norm,
                                .rstd = rstd,
                                .dsum = {},
                                .dx = gradient,
                                .dweight = gradients_.norm});
  const TensorView dx = backward_layers(layers_, gradient, states);
  ops::embedding_backward(ops_, {.tokens = batch.tokens,
                                 .dout = dx,
                                 .dtable = gradients_.embedding,
                                 .padding_idx = config_.pad_token_id.value_or(-1)});
  balance_ = nullptr;
}

void Model::forward_loss(const MicroBatch& batch, double scale, const TensorView& loss) {
  const ArenaScope scope(activations_);
  LayerStates states;
  const TensorView hidden = forward_layers(layers_, batch, embed(batch.tokens), activations_, states);
  head_loss(batch, final_norm(hidden, {}), scale, loss, {});
}

void Model::forward_logits(const MicroBatch& batch, const TensorView& out) {
  const ArenaScope scope(activations_);
  LayerStates states;
  const TensorView hidden = forward_layers(layers_, batch, embed(batch.tokens), activations_, states);
  ops::linear_forward(ops_, {.x = final_norm(hidden, {}), .weight = weights_.lm_head, .bias = {}, .out = out});
}

std::vector<LatentCache> Model::make_caches(Arena& arena, std::int64_t capacity) const {
  std::vector<LatentCache> caches(layers_.size());
  for (LatentCache& cache : caches) {
    cache.latent = arena.take(weights_.embedding.dtype, {capacity, config_.kv_lora_rank});
    cache.k_pe = arena.take(weights_.embedding.dtype, {capacity, config_.qk_rope_head_dim});
  }
  return caches;
}

void Model::decode(const TensorView& tokens, const TensorView& positions, std::int64_t length,
                   const std::vector<LatentCache>& caches, const TensorView& logits) {
  const ArenaScope scope(activations_);
  TensorView hidden = embed(tokens);
  for (std::size_t index = 0; index < layers_.size(); ++index)
    hidden = static_cast<const DeepseekLayer&>(*layers_[index])
                 .decode(hidden, positions, length, caches[index], activations_);
  const TensorView last = hidden.slice(0, hidden.shape[0] - 1, 1);
  ops::linear_forward(ops_, {.x = final_norm(last, {}), .weight = weights_.lm_head, .bias = {}, .out = logits});
}

}  // namespace lathe
