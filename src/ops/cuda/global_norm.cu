#include "ops/cuda/global_norm_launch.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;

// The number of blocks is fixed, so that the order of the sum depends on `count` alone. Squares are added in fp64.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) sum_parts(SumOfSquaresParams params) {
  const T* x = static_cast<const T*>(params.x);
  const std::int64_t packs = params.count / N;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = first; i < packs; i += step) {
    float values[N];
    load<N>(x + i * N, values);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const double value = values[j];
      sum += value * value;
    }
  }
  for (std::int64_t i = packs * N + first; i < params.count; i += step) {
    const double value = to_float(x[i]);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) params.partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumOfSquaresPartials) add_parts(SumOfSquaresParams params) {
  const double sum = block_sum(params.partials[threadIdx.x]);
  if (threadIdx.x == 0) *params.out += sum;
}

}  // namespace

cudaError_t launch_sum_of_squares(const SumOfSquaresParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  with_packs(params.element, params.wide, [&]<typename T, int N>() {
    sum_parts<T, N><<<kSumOfSquaresPartials, kThreads, 0, stream>>>(params);
    return 0;
  });
  const cudaError_t result = cudaGetLastError();
  if (result != cudaSuccess) return result;
  add_parts<<<1, kSumOfSquaresPartials, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
