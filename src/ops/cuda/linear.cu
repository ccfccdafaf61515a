#include "ops/cuda/linear_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;

// Block (row, part of the row).
template <typename F, typename T, int N>
__global__ void __launch_bounds__(kThreads) copy_rows(RowsParams params) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t j = (static_cast<std::int64_t>(blockIdx.y) * kThreads + threadIdx.x) * N;
  if (j >= params.width) return;
  float values[N];
  load<N>(params.from.row<const F>(row) + j, values);
  T* to = params.to.row<T>(row) + j;
  if (params.accumulate) {
    float before[N];
    load<N>(to, before);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] += before[i];
  }
  store<N>(values, to);
}

}  // namespace

cudaError_t launch_rows(const RowsParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.from_element, params.wide, [&]<typename F, int N>() {
    return with_element(params.to_element, [&]<typename T>() {
      const std::int64_t parts = (params.width / N + kThreads - 1) / kThreads;
      const dim3 grid(static_cast<unsigned>(params.rows), static_cast<unsigned>(parts));
      copy_rows<F, T, N><<<grid, kThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace lathe::ops::cuda
