#include "ops/cuda/embedding_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSliceThreads = 64;  // of the backward

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) forward(EmbeddingParams params) {
  const std::int32_t token = params.tokens[blockIdx.x];
  if (token < 0 || token >= params.vocab) __trap();
  const T* from = params.table.row<const T>(token);
  T* to = params.rows.row<T>(blockIdx.x);
  for (std::int64_t j = threadIdx.x * N; j < params.width; j += blockDim.x * N)
    *reinterpret_cast<Pack<T, N>*>(to + j) = *reinterpret_cast<const Pack<T, N>*>(from + j);
}

// The place behind the run of `token` that begins at `begin`; tokens ascend in the order. Few probes where runs are
// short, and few more where they are long.
__device__ __forceinline__ std::int64_t end_of_run(const EmbeddingParams& params, std::int64_t begin,
                                                   std::int32_t token) {
  const auto holds = [&](std::int64_t at) { return at < params.count && params.tokens[params.order[at]] == token; };
  std::int64_t length = 1;
  while (holds(begin + 2 * length - 1)) length *= 2;
  std::int64_t low = begin + length, high = begin + 2 * length - 1;  // the end is one of these or between
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (holds(middle))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Block (i, slice of the columns) takes place i of the order. The one where a token's run begins adds the run's rows,
// in the order of their positions, and then the table's row: one rounding. Small blocks, and many loads at once: a
// frequent token's rows are then read on several processors.
template <typename T, typename G, int N>
__global__ void __launch_bounds__(kSliceThreads, 8) backward(EmbeddingParams params) {
  const std::int64_t begin = blockIdx.x;
  const std::int32_t token = params.tokens[params.order[begin]];
  if (token < 0 || token >= params.vocab) __trap();
  if (token == params.padding_idx) return;
  if (begin > 0 && params.tokens[params.order[begin - 1]] == token) return;
  const std::int64_t end = end_of_run(params, begin, token);
  const std::int64_t j = (static_cast<std::int64_t>(blockIdx.y) * kSliceThreads + threadIdx.x) * N;
  if (j >= params.width) return;
  float sum[N] = {};
  constexpr int kAtOnce = 8;
  for (std::int64_t first = begin; first < end; first += kAtOnce) {
    Pack<T, N> packs[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const std::int64_t at = first + k < end ? first + k : end - 1;  // no branch: all loads are under way at once
      packs[k] = *reinterpret_cast<const Pack<T, N>*>(params.rows.row<const T>(params.order[at]) + j);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += first + k < end ? to_float(packs[k].values[i]) : 0.f;
  }
  G* to = params.table.row<G>(token) + j;
  float values[N];
  load<N>(to, values);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] += sum[i];
  store<N>(values, to);
}

}  // namespace

cudaError_t launch_embedding_forward(const EmbeddingParams& params, cudaStream_t stream) {
  if (params.count == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    forward<T, N><<<static_cast<unsigned>(params.count), threads_for(params.width / N, kThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launch_embedding_backward(const EmbeddingParams& params, cudaStream_t stream) {
  if (params.count == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    return with_element(params.table_element, [&]<typename G>() {
      constexpr int kSlice = kSliceThreads * N;
      const dim3 grid(static_cast<unsigned>(params.count), static_cast<unsigned>((params.width + kSlice - 1) / kSlice));
      backward<T, G, N><<<grid, kSliceThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace lathe::ops::cuda
