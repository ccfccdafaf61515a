// Sums over the rows of a matrix, a column at a time: gradients of biases and of norms' weights.
#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

// sums[j] += the sum over rows t of x[t, j]. Rows are summed in chunks, and these in an order that their number alone
// decides.
struct ColumnSums {
  Matrix x;
  std::int64_t rows = 0, width = 0;
  Element element = Element::f32;  // of x
  float* partials = nullptr;       // [column_sum_chunks(rows), width], scratch
  void* sums = nullptr;            // [width]
  Element sums_element = Element::f32;
};

std::int64_t column_sum_chunks(std::int64_t rows);
cudaError_t launch_column_sums(const ColumnSums& params, cudaStream_t stream);
// The second half alone: adds `chunks` rows of partials, which another kernel wrote.
cudaError_t launch_add_chunks(const ColumnSums& params, std::int64_t chunks, cudaStream_t stream);

}  // namespace lathe::ops::cuda
