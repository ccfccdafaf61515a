#include "ops/load_balance.h"

#include "ops/checks.h"

namespace lathe::ops {

void load_balance(const Context& context, const LoadBalance& op) {
  constexpr std::string_view kName = "load_balance";
  check_rank(kName, "scores", op.scores, 2);
  check_rank(kName, "indices", op.indices, 2);
  check_rank(kName, "dscores", op.dscores, 2);
  const std::int64_t rows = op.scores.shape[0];
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t scopes = op.dscores.shape[0];
  check(op.scores.dtype == DType::f32 || op.scores.dtype == DType::f64, "{}: scores is {}; expected f32 or f64", kName,
        op.scores.describe());
  check_tensor(kName, "scores", op.scores, context, op.scores.dtype, {rows, num_experts});
  check_tensor(kName, "indices", op.indices, context, DType::i32, {rows, op.indices.shape[1]});
  check_tensor(kName, "dscores", op.dscores, context, op.scores.dtype, {scopes, num_experts});
  check_tensor(kName, "loss", op.loss, context, DType::f64, {1});
  check(op.indices.shape[1] >= 1, "{}: indices is {}: no choices", kName, op.indices.describe());
  check(scopes >= 1 && rows % scopes == 0, "{}: {} rows do not divide into the {} scopes of dscores", kName, rows,
        scopes);
  if (op.accumulated) {
    check_tensor(kName, "accumulated", op.accumulated, context, DType::i64, {num_experts + 1});
    check(scopes == 1, "{}: counts are accumulated for one scope, not for {}", kName, scopes);
  }
  dispatch(kName, &Table::load_balance, context, op);
}

}  // namespace lathe::ops
