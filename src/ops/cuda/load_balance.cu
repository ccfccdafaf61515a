#include "ops/cuda/load_balance_launch.h"
#include "ops/cuda/reduce.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kRowsPerChunk = 128;
constexpr int kThreads = 256;

// Block (chunk, scope): each expert's choices and sum of scores. Counts are whole numbers: their atomics have no order
// that shows.
__global__ void __launch_bounds__(kThreads) count_chunk(LoadBalanceParams params) {
  extern __shared__ int counts[];
  for (int i = static_cast<int>(threadIdx.x); i < params.experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kRowsPerChunk;
  const int rows = static_cast<int>(min(static_cast<std::int64_t>(kRowsPerChunk), params.rows - begin));
  const std::int64_t first = blockIdx.y * params.rows + begin;
  for (int at = static_cast<int>(threadIdx.x); at < rows * params.k; at += kThreads) {
    const std::int32_t expert = params.indices.row<const std::int32_t>(first + at / params.k)[at % params.k];
    if (expert < 0 || expert >= params.experts) __trap();
    atomicAdd(&counts[expert], 1);
  }
  const std::int64_t place = (static_cast<std::int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * params.experts;
  for (int expert = static_cast<int>(threadIdx.x); expert < params.experts; expert += kThreads) {
    double sum = 0;
#pragma unroll 32
    for (int row = 0; row < rows; ++row)
      sum += static_cast<double>(params.scores.row<const float>(first + row)[expert]);
    params.sums[place + expert] = sum;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < params.experts; i += kThreads) params.counts[place + i] = counts[i];
}

// One block: chunks, then experts, then scopes are added in their order.
__global__ void __launch_bounds__(kThreads) balance(LoadBalanceParams params, int chunks) {
  double loss = 0;
  for (std::int64_t scope = 0; scope < params.scopes; ++scope) {
    std::int64_t tokens = params.rows;
    if (params.accumulated != nullptr) tokens += params.accumulated[params.experts];
    for (int expert = static_cast<int>(threadIdx.x); expert < params.experts; expert += kThreads) {
      std::int64_t count = 0;
      double sum = 0;
#pragma unroll 16
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const std::int64_t place = (scope * chunks + chunk) * params.experts + expert;
        count += params.counts[place];
        sum += params.sums[place];
      }
      if (params.accumulated != nullptr) count = params.accumulated[expert] += count;
      // Each row's score of the expert weighs coef / total * E * f: T_scope and the mean's 1 / T_scope cancel.
      const double share =
          tokens == 0 ? 0.0
                      : static_cast<double>(count) / (static_cast<double>(tokens) * static_cast<double>(params.k));
      const double gradient = params.coef_over_tokens * static_cast<double>(params.experts) * share;
      params.dscores.row<float>(scope)[expert] = static_cast<float>(gradient);
      loss += gradient * sum;
    }
  }
  loss = block_sum(loss);  // every thread has read the tokens' count when this returns
  if (threadIdx.x != 0) return;
  *params.loss += loss;
  if (params.accumulated != nullptr) params.accumulated[params.experts] += params.rows;
}

}  // namespace

std::int64_t load_balance_chunks(std::int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

cudaError_t launch_load_balance(const LoadBalanceParams& params, cudaStream_t stream) {
  const auto chunks = static_cast<unsigned>(load_balance_chunks(params.rows));
  const std::size_t shared = static_cast<std::size_t>(params.experts) * sizeof(int);
  if (chunks > 0) {
    count_chunk<<<dim3(chunks, static_cast<unsigned>(params.scopes)), kThreads, shared, stream>>>(params);
    const cudaError_t result = cudaGetLastError();
    if (result != cudaSuccess) return result;
  }
  balance<<<1, kThreads, 0, stream>>>(params, static_cast<int>(chunks));
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
