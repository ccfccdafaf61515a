#include "ops/swiglu.h"

#include "ops/checks.h"

namespace lathe::ops {

void swiglu_forward(const Context& context, const SwigluForward& op) {
  constexpr std::string_view kName = "swiglu_forward";
  check_rank(kName, "out", op.out, 2);
  check_floating(kName, "out", op.out);
  const std::int64_t rows = op.out.shape[0];
  const std::int64_t width = op.out.shape[1];
  check_tensor(kName, "gate_up", op.gate_up, context, op.out.dtype, {rows, 2 * width});
  check_tensor(kName, "out", op.out, context, op.out.dtype, {rows, width});
  dispatch(kName, &Table::swiglu_forward, context, op);
}

void swiglu_backward(const Context& context, const SwigluBackward& op) {
  constexpr std::string_view kName = "swiglu_backward";
  check_rank(kName, "dout", op.dout, 2);
  check_floating(kName, "dout", op.dout);
  const std::int64_t rows = op.dout.shape[0];
  const std::int64_t width = op.dout.shape[1];
  check_tensor(kName, "dout", op.dout, context, op.dout.dtype, {rows, width});
  check_tensor(kName, "gate_up", op.gate_up, context, op.dout.dtype, {rows, 2 * width});
  check_tensor(kName, "dgate_up", op.dgate_up, context, op.dout.dtype, {rows, 2 * width});
  dispatch(kName, &Table::swiglu_backward, context, op);
}

}  // namespace lathe::ops
