// From views to what kernels are given. Host code only.
#pragma once

#include <cuda_runtime_api.h>

#include <initializer_list>
#include <string_view>

#include "core/error.h"
#include "core/tensor_view.h"
#include "device/arena.h"
#include "device/cuda_check.h"
#include "ops/context.h"
#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

// Throws Error for other types than bf16 and fp32.
Element element_of(std::string_view op, const TensorView& tensor);

// The rows of a rank-2 view, or of none.
inline Matrix matrix_of(const TensorView& tensor) { return {tensor.data, tensor ? tensor.strides[0] : 0}; }

inline cudaStream_t stream_of(const Context& context) { return static_cast<cudaStream_t>(context.stream.handle); }

// True if the rows of every tensor that was given begin at multiples of 16 bytes and end at such: kernels then load and
// store 16 bytes at a time. The elements of all but the first dimensions count as one row.
bool rows_of_16_bytes(std::initializer_list<TensorView> tensors);

// `count` elements of scratch memory.
template <typename T>
T* take_scratch(const Context& context, std::int64_t count) {
  const TensorView memory = context.scratch->take(dtype_of<T>, {count});
  return memory.as<T>();
}

// Whether a tensor's gradient is kept in fp32 beside bf16 tensors.
inline Element gradient_element(const TensorView& gradient) {
  return gradient.dtype == DType::f32 ? Element::f32 : Element::bf16;
}

}  // namespace lathe::ops::cuda
