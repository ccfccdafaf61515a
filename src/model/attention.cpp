#include "model/attention.h"

#include "ops/linear.h"
#include "ops/mla_attention.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace lathe {
namespace {

constexpr double kLatentNormEps = 1e-6;  // of q_a_layernorm and kv_a_layernorm, whatever rms_norm_eps says

// [T, h, d] as the attention op takes it: [b, s, h, d], or as it is when packed.
TensorView per_sequence(const MicroBatch& batch, const TensorView& x) {
  return batch.cu_seqlens ? x : x.split(0, batch.sequence_length);
}

// The parts of [T, h (first + second)] as [T, h, first] and [T, h, second].
struct Halves {
  Halves(const TensorView& x, std::int64_t first, std::int64_t second)
      : left(x.split(1, first + second).slice(2, 0, first)),
        right(x.split(1, first + second).slice(2, first, second)) {}
  TensorView left;
  TensorView right;
};

}  // namespace

void Attention::rotate(const TensorView& x, const TensorView& out, const TensorView& positions, bool transpose) const {
  ops::rope(ops_,
            {.x = x, .out = out, .positions = positions, .cos = rope_.cos, .sin = rope_.sin, .transpose = transpose});
}

void Attention::project(const TensorView& x, const TensorView& positions, const TensorView& latent,
                        const TensorView& k_pe, AttentionState& state, Arena& arena) const {
  const std::int64_t rows = x.shape[0];
  const DType dtype = x.dtype;
  const DType statistics = at_least_f32(dtype);
  state.x = x;
  state.q = arena.take(dtype, {rows, config_.num_heads * config_.qk_head_dim()});
  if (config_.q_lora_rank) {
    state.q_a = arena.take(dtype, {rows, *config_.q_lora_rank});
    state.q_a_normed = arena.take(dtype, {rows, *config_.q_lora_rank});
    state.q_a_rstd = arena.take(statistics, {rows});
    ops::linear_forward(ops_, {.x = x, .weight = weights_.q_a, .bias = weights_.q_a_bias, .out = state.q_a});
    ops::rms_norm_forward(ops_, {.x = state.q_a,
                                 .residual = {},
                                 .weight = weights_.q_a_norm,
                                 .eps = kLatentNormEps,
                                 .out = state.q_a_normed,
                                 .sum = {},
                                 .rstd = state.q_a_rstd});
    ops::linear_forward(ops_, {.x = state.q_a_normed, .weight = weights_.q_b, .bias = {}, .out = state.q});
  } else {
    ops::linear_forward(ops_, {.x = x, .weight = weights_.q_proj, .bias = {}, .out = state.q});
  }
  const TensorView q_pe = Halves(state.q, config_.qk_nope_head_dim, config_.qk_rope_head_dim).right;
  rotate(q_pe, q_pe, positions, false);

  state.kv_a = arena.take(dtype, {rows, config_.kv_lora_rank + config_.qk_rope_head_dim});
  state.latent = latent ? latent : arena.take(dtype, {rows, config_.kv_lora_rank});
  state.latent_rstd = arena.take(statistics, {rows});
  ops::linear_forward(ops_, {.x = x, .weight = weights_.kv_a, .bias = weights_.kv_a_bias, .out = state.kv_a});
  const Halves kv_a(state.kv_a, config_.kv_lora_rank, config_.qk_rope_head_dim);
  ops::rms_norm_forward(ops_, {.x = kv_a.left.select(1, 0),
                               .residual = {},
                               .weight = weights_.kv_a_norm,
                               .eps = kLatentNormEps,
                               .out = state.latent,
                               .sum = {},
                               .rstd = state.latent_rstd});
  rotate(kv_a.right, k_pe ? k_pe : kv_a.right, positions, false);
}

void Attention::forward(const MicroBatch& batch, const TensorView& x, const TensorView& out, AttentionState& state,
                        Arena& arena) const {
  const std::int64_t rows = batch.rows();
  const std::int64_t heads = config_.num_heads;
  project(x, batch.positions, {}, {}, state, arena);
  state.kv = arena.take(x.dtype, {rows, heads * (config_.qk_nope_head_dim + config_.v_head_dim)});
  ops::linear_forward(ops_, {.x = state.latent, .weight = weights_.kv_b, .bias = {}, .out = state.kv});

  state.out = arena.take(x.dtype, {rows, heads * config_.v_head_dim});
  const DType statistics = at_least_f32(x.dtype);
  state.lse = batch.cu_seqlens ? arena.take(statistics, {heads, rows})
                               : arena.take(statistics, {batch.batch, heads, batch.sequence_length});
  const Halves q(state.q, config_.qk_nope_head_dim, config_.qk_rope_head_dim);
  const Halves kv(state.kv, config_.qk_nope_head_dim, config_.v_head_dim);
  const Halves kv_a(state.kv_a, config_.kv_lora_rank, config_.qk_rope_head_dim);
  ops::mla_attention_forward(ops_, {.q_nope = per_sequence(batch, q.left),
                                    .q_pe = per_sequence(batch, q.right),
                                    .k_nope = per_sequence(batch, kv.left),
                                    .k_pe = per_sequence(batch, kv_a.right),
                                    .v = per_sequence(batch, kv.right),
                                    .out = per_sequence(batch, state.out.split(1, config_.v_head_dim)),
                                    .lse = state.lse,
                                    .cu_seqlens_q = batch.cu_seqlens,
                                    .cu_seqlens_k = batch.cu_seqlens,
                                    .softmax_scale = config_.softmax_scale,
                                    .causal = true});
  ops::linear_forward(ops_, {.x = state.out, .weight = weights_.o_proj, .bias = weights_.o_bias, .out = out});
}

void Attention::backward(const MicroBatch& batch, const AttentionState& state, const TensorView& dout,
                         const TensorView& dx, Arena& arena) const {
  const DType dtype = dout.dtype;
  const TensorView dattention = arena.take(dtype, {batch.rows(), state.out.shape[1]});
  const TensorView dq = arena.take(dtype, {batch.rows(), state.q.shape[1]});
  const TensorView dkv = arena.take(dtype, {batch.rows(), state.kv.shape[1]});
  const TensorView dkv_a = arena.take(dtype, {batch.rows(), state.kv_a.shape[1]});
  ops::linear_backward(ops_, {.dout = dout,
                              .x = state.out,
                              .weight = weights_.o_proj,
                              .dx = dattention,
                              .dweight = gradients_.o_proj,
                              .dbias = gradients_.o_bias});

  const Halves q(state.q, config_.qk_nope_head_dim, config_.qk_rope_head_dim);
  const Halves kv(state.kv, config_.qk_nope_head_dim, config_.v_head_dim);
  const Halves kv_a(state.kv_a, config_.kv_lora_rank, config_.qk_rope_head_dim);
  const Halves dq_parts(dq, config_.qk_nope_head_dim, config_.qk_rope_head_dim);
  const Halves dkv_parts(dkv, config_.qk_nope_head_dim, config_.v_head_dim);
  const Halves dkv_a_parts(dkv_a, config_.kv_lora_rank, config_.qk_rope_head_dim);
  ops::mla_attention_backward(ops_, {.q_nope = per_sequence(batch, q.left),
                                     .q_pe = per_sequence(batch, q.right),
                                     .k_nope = per_sequence(batch, kv.left),
                                     .k_pe = per_sequence(batch, kv_a.right),
                                     .v = per_sequence(batch, kv.right),
                                     .out = per_sequence(batch, state.out.split(1, config_.v_head_dim)),
                                     .lse = state.lse,
                                     .dout = per_sequence(batch, dattention.split(1, config_.v_head_dim)),
                                     .dlse = {},
                                     .dq_nope = per_sequence(batch, dq_parts.left),
                                     .dq_pe = per_sequence(batch, dq_parts.right),
                                     .dk_nope = per_sequence(batch, dkv_parts.left),
                                     .dv = per_sequence(batch, dkv_parts.right),
                                     .dk_pe = per_sequence(batch, dkv_a_parts.right),
                                     .cu_seqlens_q = batch.cu_seqlens,
                                     .cu_seqlens_k = batch.cu_seqlens,
                                     .softmax_scale = config_.softmax_scale,
                                     .causal = true,
                                     .deterministic = true});  // costs little, and steps repeat bit for bit
  rotate(dq_parts.right, dq_parts.right, batch.positions, true);
  rotate(dkv_a_parts.right, dkv_a_parts.right, batch.positions, true);

  const TensorView dlatent = arena.take(dtype, {batch.rows(), config_.kv_lora_rank});
  ops::linear_backward(ops_, {.dout = dkv,
                              .x = state.latent,
                              .weight = weights_.kv_b,
                              .dx = dlatent,
                              .dweight = gradients_.kv_b,
                              .dbias = {}});
  ops::rms_norm_backward(ops_, {.dout = dlatent,
                                .x = kv_a.left.select(1, 0),
                                .weight = weights_.kv_a_norm,
                                .rstd = state.latent_rstd,
                                .dsum = {},
                                .dx = dkv_a_parts.left.select(1, 0),
                                .dweight = gradients_.kv_a_norm});
  ops::linear_backward(ops_, {.dout = dkv_a,
                              .x = state.x,
                              .weight = weights_.kv_a,
                              .dx = dx,
                              .dweight = gradients_.kv_a,
                              .dbias = gradients_.kv_a_bias});
  if (!config_.q_lora_rank) {
    ops::linear_backward(ops_, {.dout = dq,
                                .x = state.x,
                                .weight = weights_.q_proj,
                                .dx = dx,
                                .accumulate_dx = true,
                                .dweight = gradients_.q_proj,
                                .dbias = {}});
    return;
  }
  const TensorView dq_a = arena.take(dtype, {batch.rows(), *config_.q_lora_rank});
  ops::linear_backward(
      ops_,
      {.dout = dq, .x = state.q_a_normed, .weight = weights_.q_b, .dx = dq_a, .dweight = gradients_.q_b, .dbias = {}});
  ops::rms_norm_backward(ops_, {.dout = dq_a,
                                .x = state.q_a,
                                .weight = weights_.q_a_norm,
                                .rstd = state.q_a_rstd,
                                .dsum = {},
                                .dx = dq_a,
                                .dweight = gradients_.q_a_norm});
  ops::linear_backward(ops_, {.dout = dq_a,
                              .x = state.x,
                              .weight = weights_.q_a,
                              .dx = dx,
                              .accumulate_dx = true,
                              .dweight = gradients_.q_a,
                              .dbias = gradients_.q_a_bias});
}

void Attention::decode(const TensorView& x, const TensorView& positions, std::int64_t length, const LatentCache& cache,
                       const TensorView& out, Arena& arena) const {
  const std::int64_t rows = x.shape[0];
  const std::int64_t heads = config_.num_heads;
  const std::int64_t rank = config_.kv_lora_rank;
  AttentionState state;
  project(x, positions, cache.latent.slice(0, length, rows),
          cache.k_pe.slice(0, length, rows).split(1, config_.qk_rope_head_dim), state, arena);

  // Head by head: q_nope W_uk meets the latent itself, and W_uv turns the averaged latent into the head's output.
  const Halves q(state.q, config_.qk_nope_head_dim, config_.qk_rope_head_dim);
  const TensorView q_latent = arena.take(x.dtype, {1, rows, heads, rank});
  const TensorView out_latent = arena.take(x.dtype, {1, rows, heads, rank});
  const TensorView attention = arena.take(x.dtype, {rows, heads, config_.v_head_dim});
  const TensorView kv_b = weights_.kv_b.reshape({heads, config_.qk_nope_head_dim + config_.v_head_dim, rank});
  for (std::int64_t head = 0; head < heads; ++head) {
    ops::linear_backward(ops_, {.dout = q.left.select(1, head),
                                .x = {},
                                .weight = kv_b.select(0, head).slice(0, 0, config_.qk_nope_head_dim),
                                .dx = q_latent.select(0, 0).select(1, head),
                                .dweight = {},
                                .dbias = {}});
  }
  TensorView keys = cache.latent.slice(0, 0, length + rows).reshape({1, length + rows, 1, rank});
  keys.shape[2] = heads;
  keys.strides[2] = 0;
  ops::mla_attention_forward(
      ops_, {.q_nope = q_latent,
             .q_pe = q.right.split(0, rows),
             .k_nope = keys,
             .k_pe = cache.k_pe.slice(0, 0, length + rows).reshape({1, length + rows, 1, config_.qk_rope_head_dim}),
             .v = keys,
             .out = out_latent,
             .lse = arena.take(at_least_f32(x.dtype), {1, heads, rows}),
             .cu_seqlens_q = {},
             .cu_seqlens_k = {},
             .softmax_scale = config_.softmax_scale,
             .causal = true});
  for (std::int64_t head = 0; head < heads; ++head) {
    ops::linear_forward(ops_, {.x = out_latent.select(0, 0).select(1, head),
                               .weight = kv_b.select(0, head).slice(0, config_.qk_nope_head_dim, config_.v_head_dim),
                               .bias = {},
                               .out = attention.select(1, head)});
  }
  ops::linear_forward(ops_, {.x = attention.reshape({rows, heads * config_.v_head_dim}),
                             .weight = weights_.o_proj,
                             .bias = weights_.o_bias,
                             .out = out});
}

}  // namespace lathe
