#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct PermuteParams {
  Matrix tokens;            // [rows, width]: x, dx, out or dout
  Matrix sorted;            // [rows * k, width]: out, dout or x
  Matrix dsorted;           // the same, dx of unpermute_backward; may be `sorted`
  Matrix row_map;           // [rows, k] i32
  Matrix weights;           // [rows, k] fp32
  Matrix dweights;          // [rows, k] fp32
  Matrix residual, shared;  // [rows, width] or none
  std::int64_t rows = 0, width = 0;
  int k = 0;
  bool accumulate = false;
  Element element = Element::f32;
  bool wide = false;  // rows of whole 16 bytes
};

cudaError_t launch_permute_forward(const PermuteParams& params, cudaStream_t stream);
cudaError_t launch_permute_backward(const PermuteParams& params, cudaStream_t stream);
cudaError_t launch_unpermute_forward(const PermuteParams& params, cudaStream_t stream);
cudaError_t launch_unpermute_backward(const PermuteParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
