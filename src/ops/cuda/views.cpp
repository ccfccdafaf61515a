#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

Element element_of(std::string_view op, const TensorView& tensor) {
  if (tensor.dtype == DType::f32) return Element::f32;
  if (tensor.dtype == DType::bf16) return Element::bf16;
  fail("{}: the CUDA ops take f32 and bf16, not {}", op, tensor.describe());
}

bool rows_of_16_bytes(std::initializer_list<TensorView> tensors) {
  constexpr std::uintptr_t kBytes = 16;
  for (const TensorView& tensor : tensors) {
    if (!tensor) continue;
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % kBytes != 0) return false;
    const auto last = static_cast<std::size_t>(tensor.rank - 1);
    const std::size_t size = size_of(tensor.dtype);
    if (static_cast<std::size_t>(tensor.shape[last]) * size % kBytes != 0) return false;
    for (std::size_t dim = 0; dim < last; ++dim)
      if (tensor.shape[dim] > 1 && static_cast<std::size_t>(tensor.strides[dim]) * size % kBytes != 0) return false;
  }
  return true;
}

}  // namespace lathe::ops::cuda
