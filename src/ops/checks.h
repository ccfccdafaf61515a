// The checks that every op's front function makes, once for all devices. Each throws Error with the op, the tensor,
// what was given and what was expected.
#pragma once

#include <initializer_list>
#include <string_view>

#include "device/work_recorder.h"
#include "ops/context.h"
#include "ops/table.h"
#include "ops/work.h"

namespace lathe::ops {

// The shape is exactly `expected`, and the tensor was given (it has data unless it has no elements).
void check_shape(std::string_view op, std::string_view name, const TensorView& view,
                 std::initializer_list<std::int64_t> expected);
void check_rank(std::string_view op, std::string_view name, const TensorView& view, int rank);

void check_dtype(std::string_view op, std::string_view name, const TensorView& view, DType expected);
// fp32, fp64 or bf16.
void check_floating(std::string_view op, std::string_view name, const TensorView& view);

// The type of a tensor that may be kept in fp32 beside others of `dtype`: its own where it may.
DType dtype_or_f32(const TensorView& view, DType dtype);

// The elements of the last dimension lie side by side; the other strides are free.
void check_contiguous_last(std::string_view op, std::string_view name, const TensorView& view);
void check_contiguous(std::string_view op, std::string_view name, const TensorView& view);

// The tensor lives on the context's device.
void check_device(std::string_view op, std::string_view name, const TensorView& view, const Context& context);

// All of the above for the common tensor: given, of this shape and dtype, last dimension contiguous, on the device.
void check_tensor(std::string_view op, std::string_view name, const TensorView& view, const Context& context,
                  DType dtype, std::initializer_list<std::int64_t> shape);

// `name` must be left out, because of `reason`.
void check_absent(std::string_view op, std::string_view name, const TensorView& view, std::string_view reason);

[[noreturn]] void fail_missing(std::string_view op, const Context& context);

// Runs the device's implementation, timed if the device has a recorder; fails by name if there is none.
template <typename Params>
void dispatch(std::string_view op, Implementation<Params> Table::*entry, const Context& context, const Params& params) {
  const Implementation<Params> run = context.table != nullptr ? context.table->*entry : nullptr;
  if (run == nullptr) fail_missing(op, context);
  WorkRecorder* const recorder = context.device->recorder();
  if (recorder == nullptr) return run(context, params);
  recorder->record(op, work_of(params), [&] { run(context, params); });
}

}  // namespace lathe::ops
