// Tensor maps of bf16 and fp32 matrices, for the copy engine.
#pragma once

#include <cuda.h>

#include "core/tensor_view.h"

namespace lathe::ops::cuda {

// Boxes of 128 bytes of columns and `box_rows` rows (at most 256) of a matrix, or of one of a stack of matrices, not
// empty, in rows of whole 16 bytes: a panel with the 128-byte swizzle. Coordinates: {column, row, matrix}. What lies
// outside becomes 0, or is not written. Throws DeviceError if the driver refuses.
CUtensorMap matrix_map(const TensorView& matrices, int box_rows);

}  // namespace lathe::ops::cuda
