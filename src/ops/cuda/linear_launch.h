// What linear layers need beside products.
#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct RowsParams {
  Matrix from;  // [rows, width], or one row for every row of `to` (stride 0)
  Matrix to;    // [rows, width]
  std::int64_t rows = 0, width = 0;
  Element from_element = Element::f32, to_element = Element::f32;
  bool accumulate = false;  // to += from instead of to = from
  bool wide = false;        // rows of whole 16 bytes, in both
};

// Copies rows, or adds them, from one type to another.
cudaError_t launch_rows(const RowsParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
