#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct RouterParams {
  Matrix logits, scores;     // [rows, experts] fp32
  Matrix indices;            // [rows, k] i32
  Matrix weights;            // [rows, k]
  Matrix dweights, dlogits;  // the backward's
  Matrix dscores;            // [scopes, experts] or none
  std::int64_t rows = 0, rows_per_scope = 1;
  int experts = 0, k = 0;
  int groups = 0, topk_group = 0;  // groups: 0 for greedy
  float scaling_factor = 1;
  bool normalize = false, force_balanced = false;
};

inline constexpr int kMostExperts = 2048;
inline constexpr int kMostExpertsAndGroups = 3072;  // of the forward: 48 KB of shared memory for 4 rows

cudaError_t launch_router_forward(const RouterParams& params, cudaStream_t stream);
cudaError_t launch_router_backward(const RouterParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
