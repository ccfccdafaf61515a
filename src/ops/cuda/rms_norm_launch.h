#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct RmsNormParams {
  Matrix x;
  Matrix residual, sum, out;  // the forward's; residual and sum may be none
  Matrix dout, dsum, dx;      // the backward's; dsum may be none
  const void* weight = nullptr;
  float* rstd = nullptr;  // [rows], may be none in the forward
  std::int64_t rows = 0, width = 0;
  float eps = 0;
  Element element = Element::f32;
  bool wide = false;  // rows of whole 16 bytes
};

cudaError_t launch_rms_norm_forward(const RmsNormParams& params, cudaStream_t stream);
// dx alone; the weight's gradient is a sum over columns (column_sums.h).
cudaError_t launch_rms_norm_backward(const RmsNormParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
