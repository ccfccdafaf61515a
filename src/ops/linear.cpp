#include "ops/linear.h"

#include "ops/checks.h"

namespace lathe::ops {

void linear_forward(const Context& context, const LinearForward& op) {
  constexpr std::string_view kName = "linear_forward";
  check_rank(kName, "x", op.x, 2);
  check_rank(kName, "weight", op.weight, 2);
  check_floating(kName, "x", op.x);
  const DType dtype = op.x.dtype;
  const std::int64_t rows = op.x.shape[0];
  const std::int64_t in = op.x.shape[1];
  const std::int64_t out = op.weight.shape[0];
  check_tensor(kName, "x", op.x, context, dtype, {rows, in});
  check_tensor(kName, "weight", op.weight, context, dtype, {out, in});
  if (op.bias) check_tensor(kName, "bias", op.bias, context, dtype, {out});
  check_tensor(kName, "out", op.out, context, dtype_or_f32(op.out, dtype), {rows, out});
  dispatch(kName, &Table::linear_forward, context, op);
}

void linear_backward(const Context& context, const LinearBackward& op) {
  constexpr std::string_view kName = "linear_backward";
  check_rank(kName, "dout", op.dout, 2);
  check_floating(kName, "dout", op.dout);
  const DType dtype = op.dx ? op.weight.dtype : op.dweight ? op.x.dtype : op.dout.dtype;
  const std::int64_t rows = op.dout.shape[0];
  const std::int64_t out = op.dout.shape[1];
  check_tensor(kName, "dout", op.dout, context, dtype_or_f32(op.dout, dtype), {rows, out});
  if (op.dx) {
    check_rank(kName, "weight", op.weight, 2);
    check_tensor(kName, "weight", op.weight, context, dtype, {out, op.weight.shape[1]});
    check_tensor(kName, "dx", op.dx, context, dtype, {rows, op.weight.shape[1]});
  }
  if (op.dweight) {
    check_rank(kName, "x", op.x, 2);
    check_tensor(kName, "x", op.x, context, dtype, {rows, op.x.shape[1]});
    check_tensor(kName, "dweight", op.dweight, context, dtype_or_f32(op.dweight, dtype), {out, op.x.shape[1]});
  }
  if (op.dbias) check_tensor(kName, "dbias", op.dbias, context, dtype_or_f32(op.dbias, dtype), {out});
  dispatch(kName, &Table::linear_backward, context, op);
}

}  // namespace lathe::ops
