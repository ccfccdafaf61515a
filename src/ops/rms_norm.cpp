#include "ops/rms_norm.h"

#include "ops/checks.h"

namespace lathe::ops {
namespace {}  // namespace

void rms_norm_forward(const Context& context, const RmsNormForward& op) {
  constexpr std::string_view kName = "rms_norm_forward";
  check_rank(kName, "x", op.x, 2);
  check_floating(kName, "x", op.x);
  const DType dtype = op.x.dtype;
  const std::int64_t rows = op.x.shape[0];
  const std::int64_t hidden = op.x.shape[1];
  check_tensor(kName, "x", op.x, context, dtype, {rows, hidden});
  check_tensor(kName, "weight", op.weight, context, dtype, {hidden});
  check_tensor(kName, "out", op.out, context, dtype, {rows, hidden});
  if (op.residual) {
    check_tensor(kName, "residual", op.residual, context, dtype, {rows, hidden});
    check_tensor(kName, "sum", op.sum, context, dtype, {rows, hidden});
  } else {
    check_absent(kName, "sum", op.sum, "there is no residual");
  }
  if (op.rstd) check_tensor(kName, "rstd", op.rstd, context, at_least_f32(dtype), {rows});
  check(op.eps >= 0, "{}: eps is {}, expected at least 0", kName, op.eps);
  dispatch(kName, &Table::rms_norm_forward, context, op);
}

void rms_norm_backward(const Context& context, const RmsNormBackward& op) {
  constexpr std::string_view kName = "rms_norm_backward";
  check_rank(kName, "x", op.x, 2);
  check_floating(kName, "x", op.x);
  const DType dtype = op.x.dtype;
  const std::int64_t rows = op.x.shape[0];
  const std::int64_t hidden = op.x.shape[1];
  check_tensor(kName, "x", op.x, context, dtype, {rows, hidden});
  check_tensor(kName, "dout", op.dout, context, dtype, {rows, hidden});
  check_tensor(kName, "weight", op.weight, context, dtype, {hidden});
  check_tensor(kName, "rstd", op.rstd, context, at_least_f32(dtype), {rows});
  if (op.dsum) check_tensor(kName, "dsum", op.dsum, context, dtype, {rows, hidden});
  check_tensor(kName, "dx", op.dx, context, dtype, {rows, hidden});
  check_tensor(kName, "dweight", op.dweight, context, dtype_or_f32(op.dweight, dtype), {hidden});
  dispatch(kName, &Table::rms_norm_backward, context, op);
}

}  // namespace lathe::ops
