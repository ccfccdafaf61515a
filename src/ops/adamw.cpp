#include "ops/adamw.h"

#include "ops/checks.h"

namespace lathe::ops {
namespace {

void check_like_parameter(std::string_view name, const TensorView& view, const AdamW& op, const Context& context) {
  constexpr std::string_view kName = "adamw";
  const bool missing = !view && view.numel() != 0;
  if (missing || !view.same_shape(op.parameter))
    fail("{}: {} is {}, parameter is {}", kName, name, view.describe(), op.parameter.describe());
  check_dtype(kName, name, view, op.parameter.dtype);
  check_contiguous(kName, name, view);
  check_device(kName, name, view, context);
}

}  // namespace

void adamw(const Context& context, const AdamW& op) {
  check_floating("adamw", "parameter", op.parameter);
  check_like_parameter("parameter", op.parameter, op, context);
  check_like_parameter("gradient", op.gradient, op, context);
  check_like_parameter("m", op.m, op, context);
  check_like_parameter("v", op.v, op, context);
  check(op.step >= 1, "adamw: step is {}, expected at least 1", op.step);
  check(op.beta1 >= 0 && op.beta1 < 1 && op.beta2 >= 0 && op.beta2 < 1,
        "adamw: betas are {} and {}, expected each in [0, 1)", op.beta1, op.beta2);
  dispatch("adamw", &Table::adamw, context, op);
}

}  // namespace lathe::ops
