// Tensor maps of bf16 matrices, for the copy engine.
#pragma once

#include <cuda.h>

#include "core/tensor_view.h"

namespace lathe::ops::cuda {

// Boxes of 64 columns and `box_rows` rows (at most 256) of a matrix, or of one of a stack of matrices, not empty, in
// rows of whole 16 bytes: a panel of 128-byte rows with the 128-byte swizzle. Coordinates: {column, row, matrix}. What
// lies outside becomes 0. Throws DeviceError if the driver refuses.
CUtensorMap matrix_map(const TensorView& matrices, int box_rows);

}  // namespace lathe::ops::cuda
