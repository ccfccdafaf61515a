// Tensor maps for the copy engine, made once for each tensor and kept.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <string_view>

#include "core/tensor_view.h"

namespace lathe::ops::cuda {

// A box is all 64-column panels of `tokens` tokens of one head. Coordinates: {column, head, token, panel, batch}.
struct BoxShape {
  int tokens = 0;
  int panels = 0;
};

// bf16, [b, s, h, d] or packed [total, h, d], d a multiple of 64, strides as check_16_byte_access wants them, not
// empty. Throws DeviceError if the driver refuses.
CUtensorMap tensor_map(const TensorView& tensor, BoxShape box);

// What the copy engine and 16-byte accesses need: the pointer and all strides but the last are multiples of 16 bytes,
// strides are not negative and below 2^40 bytes. Throws Error naming the tensor and the value.
void check_16_byte_access(std::string_view name, const TensorView& tensor);

}  // namespace lathe::ops::cuda
