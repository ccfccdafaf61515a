#include "ops/router.h"

#include "ops/checks.h"

namespace lathe::ops {
namespace {

void check_scores_dtype(std::string_view op, std::string_view name, const TensorView& view) {
  check(view.dtype == DType::f32 || view.dtype == DType::f64, "{}: {} is {}; the router works in f32 or f64", op, name,
        view.describe());
}

void check_choice(std::string_view op, const RouterForward& params, std::int64_t num_experts, std::int64_t k) {
  check(k >= 1 && k <= num_experts, "{}: {} choices a row, expected 1 to {} (the experts)", op, k, num_experts);
  if (params.method != TopkMethod::group_limited_greedy) return;
  check(params.num_groups >= 1 && num_experts % params.num_groups == 0, "{}: {} experts do not divide into {} groups",
        op, num_experts, params.num_groups);
  check(params.topk_group >= 1 && params.topk_group <= params.num_groups, "{}: topk_group is {}, expected 1 to {}", op,
        params.topk_group, params.num_groups);
  const std::int64_t candidates = params.topk_group * (num_experts / params.num_groups);
  check(k <= candidates, "{}: {} choices a row, but {} of {} groups hold {} experts", op, k, params.topk_group,
        params.num_groups, candidates);
}

}  // namespace

void router_forward(const Context& context, const RouterForward& op) {
  constexpr std::string_view kName = "router_forward";
  check_rank(kName, "logits", op.logits, 2);
  check_rank(kName, "indices", op.indices, 2);
  check_scores_dtype(kName, "logits", op.logits);
  const std::int64_t rows = op.logits.shape[0];
  const std::int64_t num_experts = op.logits.shape[1];
  const std::int64_t k = op.indices.shape[1];
  check_tensor(kName, "logits", op.logits, context, op.logits.dtype, {rows, num_experts});
  check_tensor(kName, "scores", op.scores, context, op.logits.dtype, {rows, num_experts});
  check_tensor(kName, "indices", op.indices, context, DType::i32, {rows, k});
  check_tensor(kName, "weights", op.weights, context, op.logits.dtype, {rows, k});
  check_choice(kName, op, num_experts, k);
  dispatch(kName, &Table::router_forward, context, op);
}

void router_backward(const Context& context, const RouterBackward& op) {
  constexpr std::string_view kName = "router_backward";
  check_rank(kName, "scores", op.scores, 2);
  check_rank(kName, "indices", op.indices, 2);
  check_scores_dtype(kName, "scores", op.scores);
  const std::int64_t rows = op.scores.shape[0];
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t k = op.indices.shape[1];
  check_tensor(kName, "scores", op.scores, context, op.scores.dtype, {rows, num_experts});
  check_tensor(kName, "indices", op.indices, context, DType::i32, {rows, k});
  check_tensor(kName, "dweights", op.dweights, context, op.scores.dtype, {rows, k});
  check_tensor(kName, "dlogits", op.dlogits, context, op.scores.dtype, {rows, num_experts});
  if (op.dscores) {
    check_rank(kName, "dscores", op.dscores, 2);
    const std::int64_t scopes = op.dscores.shape[0];
    check_tensor(kName, "dscores", op.dscores, context, op.scores.dtype, {scopes, num_experts});
    check(scopes >= 1 && rows % scopes == 0, "{}: {} rows do not divide into the {} scopes of dscores", kName, rows,
          scopes);
  }
  dispatch(kName, &Table::router_backward, context, op);
}

}  // namespace lathe::ops
