#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct RmsNormParams {
  Matrix x;
  Matrix residual, sum, out;  // the forward's; residual and sum may be none
  Matrix dout, dsum, dx;      // the backward's; dsum may be none
  const void* weight = nullptr;
  float* rstd = nullptr;      // [rows], may be none in the forward
  float* partials = nullptr;  // the backward's: [rms_norm_chunks(rows), width], written: parts of the weight's gradient
  std::int64_t rows = 0, width = 0;
  float eps = 0;
  Element element = Element::f32;
  bool wide = false;  // rows of whole 16 bytes
};

cudaError_t launch_rms_norm_forward(const RmsNormParams& params, cudaStream_t stream);

// The backward takes so many chunks of rows; at most kMostRmsNormWidth columns. The weight's gradient is the sum of the
// partials (column_sums.h).
std::int64_t rms_norm_chunks(std::int64_t rows);
inline constexpr std::int64_t kMostRmsNormWidth = 56 * 1024;
cudaError_t launch_rms_norm_backward(const RmsNormParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
