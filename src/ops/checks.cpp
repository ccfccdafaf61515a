#include "ops/checks.h"

#include <algorithm>
#include <span>

namespace lathe::ops {
namespace {

std::string_view name_of(DeviceKind kind) { return kind == DeviceKind::cpu ? "CPU" : "CUDA"; }

bool missing(const TensorView& view) { return view.data == nullptr && (view.rank == 0 || view.numel() != 0); }

}  // namespace

void check_shape(std::string_view op, std::string_view name, const TensorView& view,
                 std::initializer_list<std::int64_t> expected) {
  const std::span<const std::int64_t> shape(view.shape.data(), static_cast<std::size_t>(view.rank));
  const std::span<const std::int64_t> wanted(expected.begin(), expected.size());
  if (missing(view)) fail("{}: {} is not given, expected {}", op, name, format_shape(wanted));
  if (!std::ranges::equal(shape, wanted))
    fail("{}: {} is {}, expected {}", op, name, view.describe(), format_shape(wanted));
}

void check_rank(std::string_view op, std::string_view name, const TensorView& view, int rank) {
  if (missing(view)) fail("{}: {} is not given, expected {} dimensions", op, name, rank);
  if (view.rank != rank) fail("{}: {} is {}, expected {} dimensions", op, name, view.describe(), rank);
}

void check_dtype(std::string_view op, std::string_view name, const TensorView& view, DType expected) {
  if (view.dtype != expected) fail("{}: {} is {}, expected {}", op, name, view.describe(), lathe::name_of(expected));
}

void check_floating(std::string_view op, std::string_view name, const TensorView& view) {
  const bool floating = view.dtype == DType::f32 || view.dtype == DType::f64 || view.dtype == DType::bf16;
  if (!floating) fail("{}: {} is {}, expected a floating-point tensor", op, name, view.describe());
}

DType dtype_or_f32(const TensorView& view, DType dtype) {
  return dtype == DType::bf16 && view.dtype == DType::f32 ? DType::f32 : dtype;
}

void check_contiguous_last(std::string_view op, std::string_view name, const TensorView& view) {
  if (view.rank == 0) return;
  const auto last = static_cast<std::size_t>(view.rank - 1);
  if (view.shape[last] > 1 && view.strides[last] != 1)
    fail("{}: {} is {}, expected a contiguous last dimension", op, name, view.describe());
}

void check_contiguous(std::string_view op, std::string_view name, const TensorView& view) {
  if (!view.is_contiguous()) fail("{}: {} is {}, expected contiguous elements", op, name, view.describe());
}

void check_device(std::string_view op, std::string_view name, const TensorView& view, const Context& context) {
  if (context.device == nullptr) fail("{}: the context has no device", op);
  if (view.device != context.device->kind())
    fail("{}: {} is on {}, expected {}", op, name, name_of(view.device), name_of(context.device->kind()));
}

void check_tensor(std::string_view op, std::string_view name, const TensorView& view, const Context& context,
                  DType dtype, std::initializer_list<std::int64_t> shape) {
  check_shape(op, name, view, shape);
  check_dtype(op, name, view, dtype);
  check_contiguous_last(op, name, view);
  check_device(op, name, view, context);
}

void check_absent(std::string_view op, std::string_view name, const TensorView& view, std::string_view reason) {
  if (view) fail("{}: {} is {}, expected none: {}", op, name, view.describe(), reason);
}

void fail_missing(std::string_view op, const Context& context) {
  if (context.device == nullptr) fail("{}: the context has no device", op);
  fail("{} has no implementation on {}", op, name_of(context.device->kind()));
}

}  // namespace lathe::ops
