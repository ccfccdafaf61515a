// How every tensor map of bf16 or fp32 is made.
#pragma once

#include <cuda.h>

#include <cstddef>

#include "core/tensor_view.h"

namespace lathe::ops::cuda {

// As cuTensorMapEncodeTiled takes them, of kRank dimensions, the innermost first; strides in bytes from the second on.
template <std::size_t kRank>
struct MapShape {
  cuuint64_t sizes[kRank];
  cuuint64_t strides[kRank - 1];
  cuuint32_t box[kRank];  // 128 bytes of the innermost dimension
};

// With the 128-byte swizzle; outside of the tensor lies 0. `tensor` is what a message names. Throws DeviceError if the
// driver refuses.
template <std::size_t kRank>
CUtensorMap encode_map(const TensorView& tensor, const MapShape<kRank>& shape, CUtensorMapL2promotion promotion);

}  // namespace lathe::ops::cuda
