#include "ops/adamw.h"

#include "ops/checks.h"

namespace lathe::ops {
namespace {

void check_like_parameter(std::string_view name, const TensorView& view, DType dtype, const AdamW& op,
                          const Context& context) {
  constexpr std::string_view kName = "adamw";
  const bool missing = !view && view.numel() != 0;
  if (missing || !view.same_shape(op.parameter))
    fail("{}: {} is {}, parameter is {}", kName, name, view.describe(), op.parameter.describe());
  check_dtype(kName, name, view, dtype);
  check_contiguous(kName, name, view);
  check_device(kName, name, view, context);
}

}  // namespace

void adamw(const Context& context, const AdamW& op) {
  check_floating("adamw", "parameter", op.parameter);
  const DType dtype = op.parameter.dtype;
  check_like_parameter("parameter", op.parameter, dtype, op, context);
  const bool mixed = dtype != DType::f64 && (op.gradient.dtype == DType::f32 || op.gradient.dtype == DType::bf16);
  check_like_parameter("gradient", op.gradient, mixed ? op.gradient.dtype : dtype, op, context);
  check_like_parameter("m", op.m, dtype, op, context);
  check_like_parameter("v", op.v, dtype, op, context);
  if (op.rounded) check_like_parameter("rounded", op.rounded, DType::bf16, op, context);
  check(op.step >= 1, "adamw: step is {}, expected at least 1", op.step);
  check(op.beta1 >= 0 && op.beta1 < 1 && op.beta2 >= 0 && op.beta2 < 1,
        "adamw: betas are {} and {}, expected each in [0, 1)", op.beta1, op.beta2);
  dispatch("adamw", &Table::adamw, context, op);
}

}  // namespace lathe::ops
