#include "ops/rope.h"

#include "core/error.h"
#include "ops/checks.h"

namespace lathe::ops {
namespace {

constexpr std::string_view kName = "rope";

// The values are looked at where that is free: on the CPU. On a device it would wait for the stream.
void check_positions(const TensorView& positions, std::int64_t limit) {
  if (positions.device != DeviceKind::cpu) return;
  const auto* values = positions.as<std::int32_t>();
  for (std::int64_t t = 0; t < positions.shape[0]; ++t) {
    const std::int32_t position = values[t * positions.strides[0]];
    check(position >= 0 && position < limit, "rope: position {} of row {} is outside [0, {})", position, t, limit);
  }
}

}  // namespace

void rope(const Context& context, const Rope& op) {
  const TensorView& x = op.x;
  check_rank(kName, "x", x, 3);
  check_floating(kName, "x", x);
  check(x.shape[2] % 2 == 0, "rope: x is {}, expected an even last dimension", x.describe());
  check_tensor(kName, "x", x, context, x.dtype, {x.shape[0], x.shape[1], x.shape[2]});
  check_tensor(kName, "out", op.out, context, x.dtype, {x.shape[0], x.shape[1], x.shape[2]});
  check_rank(kName, "cos", op.cos, 2);
  check_tensor(kName, "cos", op.cos, context, DType::f32, {op.cos.shape[0], x.shape[2] / 2});
  check_tensor(kName, "sin", op.sin, context, DType::f32, {op.cos.shape[0], x.shape[2] / 2});
  check_tensor(kName, "positions", op.positions, context, DType::i32, {x.shape[0]});
  check_positions(op.positions, op.cos.shape[0]);
  dispatch(kName, &Table::rope, context, op);
}

}  // namespace lathe::ops
