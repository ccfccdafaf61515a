#include "model/layer.h"

#include "ops/rms_norm.h"

namespace lathe {
namespace {

DeepseekLayerState& cast(LayerState& state) { return static_cast<DeepseekLayerState&>(state); }

TensorView take_rows_statistics(Arena& arena, const TensorView& x) {
  return arena.take(at_least_f32(x.dtype), {x.shape[0]});
}

TensorView take_like(Arena& arena, const TensorView& x) { return arena.take(x.dtype, {x.shape[0], x.shape[1]}); }

}  // namespace

DeepseekLayer::DeepseekLayer(const ModelConfig& config, const ops::Context& ops, const LayerParameters& weights,
                             const LayerParameters& gradients, const RopeViews& rope, std::int64_t index,
                             const BalanceLoss* const* balance)
    : config_(config),
      ops_(ops),
      weights_(weights),
      gradients_(gradients),
      attention_(config, ops, weights, gradients, rope),
      moe_(config, ops, weights, gradients, index),
      dense_(config.is_dense(index)),
      balance_(balance) {}

std::unique_ptr<LayerState> DeepseekLayer::make_state(const MicroBatch& batch, Arena& activations) const {
  return std::make_unique<DeepseekLayerState>(batch, activations);
}

void DeepseekLayer::attention_forward(LayerState& base, const TensorView& x) const {
  DeepseekLayerState& state = cast(base);
  Arena& arena = *state.activations;
  enter_attention(state, x);
  const TensorView attended = take_like(arena, x);
  attention_.forward(*state.batch, state.normed, attended, state.attention, arena);
  enter_mlp(state, attended);
}

void DeepseekLayer::enter_attention(DeepseekLayerState& state, const TensorView& x) const {
  Arena& arena = *state.activations;
  state.x = x;
  state.normed = take_like(arena, x);
  state.rstd = take_rows_statistics(arena, x);
  ops::rms_norm_forward(ops_, {.x = x,
                               .residual = {},
                               .weight = weights_.input_norm,
                               .eps = config_.rms_norm_eps,
                               .out = state.normed,
                               .sum = {},
                               .rstd = state.rstd});
}

void DeepseekLayer::enter_mlp(DeepseekLayerState& state, const TensorView& attended) const {
  Arena& arena = *state.activations;
  state.sum = attended;  // the sum takes the place of the attention's output, which nothing needs again
  state.normed2 = take_like(arena, state.x);
  state.rstd2 = take_rows_statistics(arena, state.x);
  ops::rms_norm_forward(ops_, {.x = attended,
                               .residual = state.x,
                               .weight = weights_.post_norm,
                               .eps = config_.rms_norm_eps,
                               .out = state.normed2,
                               .sum = state.sum,
                               .rstd = state.rstd2});
  if (!dense_) moe_.route(state.normed2, state.batch->batch, *balance_, state.moe, arena);
}

void DeepseekLayer::dispatch_forward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  if (!dense_) moe_.dispatch(state.moe, *state.activations);
}

void DeepseekLayer::experts_forward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  Arena& arena = *state.activations;
  if (!dense_) moe_.experts(state.moe, arena);
  state.mlp_out = take_like(arena, state.x);
  if (dense_) ops_.device->copy(state.mlp_out, state.sum, ops_.stream);
  mlp_forward(ops_, weights_, state.normed2, state.mlp_out, dense_, state.mlp, arena);
}

// One rank holds every expert: its rows are already where they belong.
void DeepseekLayer::combine_forward(LayerState&) const {}

TensorView DeepseekLayer::aggregate_forward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  if (dense_) return state.mlp_out;
  const TensorView out = take_like(*state.activations, state.x);
  moe_.aggregate(state.moe, state.sum, state.mlp_out, out);
  return out;
}

void DeepseekLayer::aggregate_backward(LayerState& base, const TensorView& dout) const {
  DeepseekLayerState& state = cast(base);
  state.dout = dout;
  if (!dense_) moe_.aggregate_backward(state.moe, dout, *state.activations);
}

void DeepseekLayer::combine_backward(LayerState&) const {}

void DeepseekLayer::experts_backward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  Arena& arena = *state.activations;
  state.dnormed2 = take_like(arena, state.x);
  mlp_backward(ops_, weights_, gradients_, state.mlp, state.dout, state.dnormed2, false, arena);
  if (!dense_) moe_.experts_backward(state.moe, arena);
}

void DeepseekLayer::dispatch_backward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  if (!dense_) moe_.dispatch_backward(state.moe, state.dnormed2);
}

TensorView DeepseekLayer::attention_backward(LayerState& base) const {
  DeepseekLayerState& state = cast(base);
  Arena& arena = *state.activations;
  if (!dense_) moe_.route_backward(state.moe, state.dnormed2, arena);
  // dout becomes the gradient of the sum: it reaches x as it is, and through the attention.
  ops::rms_norm_backward(ops_, {.dout = state.dnormed2,
                                .x = state.sum,
                                .weight = weights_.post_norm,
                                .rstd = state.rstd2,
                                .dsum = state.dout,
                                .dx = state.dout,
                                .dweight = gradients_.post_norm});
  const TensorView dnormed = state.dnormed2;
  attention_.backward(*state.batch, state.attention, state.dout, dnormed, arena);
  ops::rms_norm_backward(ops_, {.dout = dnormed,
                                .x = state.x,
                                .weight = weights_.input_norm,
                                .rstd = state.rstd,
                                .dsum = state.dout,
                                .dx = state.dout,
                                .dweight = gradients_.input_norm});
  return state.dout;
}

TensorView DeepseekLayer::decode(const TensorView& x, const TensorView& positions, std::int64_t length,
                                 const LatentCache& cache, Arena& arena) const {
  MicroBatch batch{
      .batch = 1, .sequence_length = x.shape[0], .tokens = {}, .targets = {}, .positions = positions, .cu_seqlens = {}};
  DeepseekLayerState state(batch, arena);
  enter_attention(state, x);
  const TensorView attended = take_like(arena, x);
  attention_.decode(state.normed, positions, length, cache, attended, arena);
  enter_mlp(state, attended);
  dispatch_forward(state);
  experts_forward(state);
  combine_forward(state);
  return aggregate_forward(state);
}

}  // namespace lathe
