#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct RopeParams {
  void* x = nullptr;    // [tokens, heads, 2 half]
  void* out = nullptr;  // the same; may be x
  std::int64_t x_token = 0, x_head = 0, out_token = 0, out_head = 0;
  const std::int32_t* positions = nullptr;  // [tokens]
  std::int64_t position_stride = 0;
  const float* cos = nullptr;  // [.., half]
  const float* sin = nullptr;
  std::int64_t cos_stride = 0, sin_stride = 0;
  std::int64_t tokens = 0, heads = 0, half = 0;
  float direction = 1;  // -1: turn back
  Element element = Element::f32;
  bool wide = false;  // rows of whole 16 bytes
};

cudaError_t launch_rope(const RopeParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
