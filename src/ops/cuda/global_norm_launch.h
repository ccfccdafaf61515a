#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

inline constexpr int kSumOfSquaresPartials = 1024;

struct SumOfSquaresParams {
  const void* x = nullptr;
  std::int64_t count = 0;
  double* partials = nullptr;  // [kSumOfSquaresPartials]
  double* out = nullptr;       // added to
  Element element = Element::f32;
  bool wide = false;  // x begins at a multiple of 16 bytes
};

cudaError_t launch_sum_of_squares(const SumOfSquaresParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
