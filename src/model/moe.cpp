#include "model/moe.h"

#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/load_balance.h"
#include "ops/permute.h"
#include "ops/router.h"
#include "ops/swiglu.h"

namespace lathe {

void Moe::route(const TensorView& x, std::int64_t sequences, const BalanceLoss* balance, MoeState& state,
                Arena& arena) const {
  const std::int64_t rows = x.shape[0];
  const std::int64_t experts = config_.num_routed_experts;
  const std::int64_t topk = config_.num_experts_per_tok;
  state.x = x;
  const DType scores = at_least_f32(x.dtype);
  state.scores = arena.take(scores, {rows, experts});
  state.indices = arena.take(DType::i32, {rows, topk});
  state.weights = arena.take(scores, {rows, topk});
  // The logits are written into the scores, which the router then makes of them in place.
  ops::linear_forward(ops_, {.x = x, .weight = weights_.router, .bias = {}, .out = state.scores});
  ops::router_forward(ops_, {.logits = state.scores,
                             .method = config_.topk_method,
                             .num_groups = config_.num_groups,
                             .topk_group = config_.topk_group,
                             .scaling_factor = config_.routed_scaling_factor,
                             .normalize = config_.normalize_topk_prob,
                             .force_balanced = balance != nullptr && balance->force_balanced,
                             .scores = state.scores,
                             .indices = state.indices,
                             .weights = state.weights});
  if (balance == nullptr || balance->coef_over_tokens == 0) return;
  const bool global = balance->scope == BalanceLoss::Scope::global_batch;
  const std::int64_t scopes = balance->scope == BalanceLoss::Scope::sequence ? sequences : 1;
  state.balance_dscores = arena.take(scores, {scopes, experts});
  ops::load_balance(ops_, {.scores = state.scores,
                           .indices = state.indices,
                           .accumulated = global ? balance->accumulated.select(0, layer_) : TensorView{},
                           .coef_over_tokens = balance->coef_over_tokens,
                           .loss = balance->loss,
                           .dscores = state.balance_dscores});
}

void Moe::dispatch(MoeState& state, Arena& arena) const {
  const std::int64_t rows = state.x.shape[0];
  const std::int64_t topk = config_.num_experts_per_tok;
  state.offsets = arena.take(DType::i32, {config_.num_routed_experts + 1});
  state.row_map = arena.take(DType::i32, {rows, topk});
  state.sorted = arena.take(state.x.dtype, {rows * topk, config_.hidden_size});
  ops::permute_plan(ops_, {.indices = state.indices, .offsets = state.offsets, .row_map = state.row_map});
  ops::permute_forward(ops_, {.x = state.x, .row_map = state.row_map, .out = state.sorted});
}

void Moe::experts(MoeState& state, Arena& arena) const {
  const std::int64_t rows = state.sorted.shape[0];
  const std::int64_t width = config_.moe_intermediate_size;
  state.gate_up = arena.take(state.x.dtype, {rows, 2 * width});
  state.act = arena.take(state.x.dtype, {rows, width});
  state.expert_out = arena.take(state.x.dtype, {rows, config_.hidden_size});
  ops::grouped_linear_forward(
      ops_, {.x = state.sorted, .weight = weights_.experts_gate_up, .offsets = state.offsets, .out = state.gate_up});
  ops::swiglu_forward(ops_, {.gate_up = state.gate_up, .out = state.act});
  ops::grouped_linear_forward(
      ops_, {.x = state.act, .weight = weights_.experts_down, .offsets = state.offsets, .out = state.expert_out});
}

void Moe::aggregate(const MoeState& state, const TensorView& residual, const TensorView& shared,
                    const TensorView& out) const {
  ops::unpermute_forward(ops_, {.x = state.expert_out,
                                .weights = state.weights,
                                .row_map = state.row_map,
                                .residual = residual,
                                .shared = shared,
                                .out = out});
}

void Moe::aggregate_backward(MoeState& state, const TensorView& dout, Arena& arena) const {
  state.dweights = arena.take(state.weights.dtype, {state.weights.shape[0], state.weights.shape[1]});
  ops::unpermute_backward(ops_, {.dout = dout,
                                 .x = state.expert_out,
                                 .weights = state.weights,
                                 .row_map = state.row_map,
                                 .dx = state.expert_out,
                                 .dweights = state.dweights});
}

void Moe::experts_backward(MoeState& state, Arena& arena) const {
  const std::int64_t rows = state.sorted.shape[0];
  const TensorView dact = arena.take(state.x.dtype, {rows, config_.moe_intermediate_size});
  ops::grouped_linear_backward(ops_, {.dout = state.expert_out,
                                      .x = state.act,
                                      .weight = weights_.experts_down,
                                      .offsets = state.offsets,
                                      .dx = dact,
                                      .dweight = gradients_.experts_down});
  ops::swiglu_backward(ops_, {.dout = dact, .gate_up = state.gate_up, .dgate_up = state.gate_up});
  // The result rows are done with: their memory takes the gradient of the sorted rows.
  state.dsorted = state.expert_out;
  ops::grouped_linear_backward(ops_, {.dout = state.gate_up,
                                      .x = state.sorted,
                                      .weight = weights_.experts_gate_up,
                                      .offsets = state.offsets,
                                      .dx = state.dsorted,
                                      .dweight = gradients_.experts_gate_up});
}

void Moe::dispatch_backward(MoeState& state, const TensorView& dx) const {
  ops::permute_backward(ops_, {.dout = state.dsorted, .row_map = state.row_map, .dx = dx, .accumulate = true});
}

void Moe::route_backward(const MoeState& state, const TensorView& dx, Arena& arena) const {
  const TensorView dlogits = arena.take(state.scores.dtype, {state.scores.shape[0], state.scores.shape[1]});
  ops::router_backward(ops_, {.scores = state.scores,
                              .indices = state.indices,
                              .dweights = state.dweights,
                              .dscores = state.balance_dscores,
                              .scaling_factor = config_.routed_scaling_factor,
                              .normalize = config_.normalize_topk_prob,
                              .dlogits = dlogits});
  ops::linear_backward(ops_, {.dout = dlogits,
                              .x = state.x,
                              .weight = weights_.router,
                              .dx = dx,
                              .accumulate_dx = true,
                              .dweight = gradients_.router,
                              .dbias = {}});
}

}  // namespace lathe
