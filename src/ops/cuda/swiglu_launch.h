#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct SwigluParams {
  Matrix gate_up, out;    // the forward's
  Matrix dout, dgate_up;  // the backward's
  std::int64_t rows = 0, width = 0;
  Element element = Element::f32;
  bool wide = false;  // rows of whole 16 bytes
};

cudaError_t launch_swiglu_forward(const SwigluParams& params, cudaStream_t stream);
cudaError_t launch_swiglu_backward(const SwigluParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
