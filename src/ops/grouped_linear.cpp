#include "ops/grouped_linear.h"

#include "ops/checks.h"

namespace lathe::ops {

void grouped_linear_forward(const Context& context, const GroupedLinearForward& op) {
  constexpr std::string_view kName = "grouped_linear_forward";
  check_rank(kName, "x", op.x, 2);
  check_rank(kName, "weight", op.weight, 3);
  check_floating(kName, "x", op.x);
  const DType dtype = op.x.dtype;
  const std::int64_t rows = op.x.shape[0];
  const std::int64_t in = op.x.shape[1];
  const std::int64_t groups = op.weight.shape[0];
  const std::int64_t out = op.weight.shape[1];
  check_tensor(kName, "x", op.x, context, dtype, {rows, in});
  check_tensor(kName, "weight", op.weight, context, dtype, {groups, out, in});
  check_tensor(kName, "offsets", op.offsets, context, DType::i32, {groups + 1});
  check_tensor(kName, "out", op.out, context, dtype, {rows, out});
  dispatch(kName, &Table::grouped_linear_forward, context, op);
}

void grouped_linear_backward(const Context& context, const GroupedLinearBackward& op) {
  constexpr std::string_view kName = "grouped_linear_backward";
  check_rank(kName, "dout", op.dout, 2);
  check_rank(kName, "weight", op.weight, 3);
  check_floating(kName, "dout", op.dout);
  const DType dtype = op.dout.dtype;
  const std::int64_t rows = op.dout.shape[0];
  const std::int64_t groups = op.weight.shape[0];
  const std::int64_t out = op.weight.shape[1];
  const std::int64_t in = op.weight.shape[2];
  check_tensor(kName, "dout", op.dout, context, dtype, {rows, out});
  check_tensor(kName, "x", op.x, context, dtype, {rows, in});
  check_tensor(kName, "weight", op.weight, context, dtype, {groups, out, in});
  check_tensor(kName, "offsets", op.offsets, context, DType::i32, {groups + 1});
  check_tensor(kName, "dx", op.dx, context, dtype, {rows, in});
  check_tensor(kName, "dweight", op.dweight, context, dtype_or_f32(op.dweight, dtype), {groups, out, in});
  dispatch(kName, &Table::grouped_linear_backward, context, op);
}

}  // namespace lathe::ops
