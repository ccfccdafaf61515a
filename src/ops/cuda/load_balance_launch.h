#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct LoadBalanceParams {
  Matrix scores;                        // [scopes * rows, experts] fp32
  Matrix indices;                       // [scopes * rows, k] i32
  Matrix dscores;                       // [scopes, experts]
  std::int64_t* accumulated = nullptr;  // [experts + 1] or none
  double* loss = nullptr;               // [1], added to
  std::int64_t scopes = 1, rows = 0;    // rows of a scope
  int experts = 0, k = 0;
  double coef_over_tokens = 0;
  std::int32_t* counts = nullptr;  // [scopes, load_balance_chunks(rows), experts], scratch
  double* sums = nullptr;          // the same
};

std::int64_t load_balance_chunks(std::int64_t rows);
cudaError_t launch_load_balance(const LoadBalanceParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
