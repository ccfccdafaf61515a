#include "ops/global_norm.h"

#include "ops/checks.h"

namespace lathe::ops {

void sum_of_squares(const Context& context, const SumOfSquares& op) {
  constexpr std::string_view kName = "sum_of_squares";
  check_floating(kName, "x", op.x);
  check_rank(kName, "x", op.x, op.x.rank);
  check_contiguous(kName, "x", op.x);
  check_device(kName, "x", op.x, context);
  check_tensor(kName, "out", op.out, context, DType::f64, {1});
  dispatch(kName, &Table::sum_of_squares, context, op);
}

}  // namespace lathe::ops
