#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct AdamWParams {
  void* parameter = nullptr;
  const void* gradient = nullptr;
  void* m = nullptr;
  void* v = nullptr;
  void* rounded = nullptr;  // bf16, or none
  std::int64_t count = 0;
  // As in ops/cpu/adamw.cpp.
  float grad_scale = 1, keep = 1, beta1 = 0, beta2 = 0, rest1 = 1, rest2 = 1, step_size = 0, root_scale = 1, eps = 0;
  Element element = Element::f32;           // of parameter, m and v
  Element gradient_element = Element::f32;  // of the gradient
  bool wide = false;                        // every tensor begins at a multiple of 16 bytes
};

cudaError_t launch_adamw(const AdamWParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
