#include "ops/cuda/embedding_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) forward(EmbeddingParams params) {
  const std::int32_t token = params.tokens[blockIdx.x];
  if (token < 0 || token >= params.vocab) __trap();
  const T* from = params.table.row<const T>(token);
  T* to = params.rows.row<T>(blockIdx.x);
  for (std::int64_t j = threadIdx.x * N; j < params.width; j += blockDim.x * N)
    *reinterpret_cast<Pack<T, N>*>(to + j) = *reinterpret_cast<const Pack<T, N>*>(from + j);
}

// Block i takes place i of the order. The one where a token's run begins adds the run's rows, in the order of their
// positions, and then the table's row: one rounding.
template <typename T, typename G, int N>
__global__ void __launch_bounds__(kThreads) backward(EmbeddingParams params) {
  const std::int64_t begin = blockIdx.x;
  const std::int32_t token = params.tokens[params.order[begin]];
  if (token == params.padding_idx) return;
  if (begin > 0 && params.tokens[params.order[begin - 1]] == token) return;
  std::int64_t end = begin;
  for (int found = kThreads; found == kThreads; end += found) {
    const std::int64_t at = end + threadIdx.x;
    found = __syncthreads_count(at < params.count && params.tokens[params.order[at]] == token);
  }
  for (std::int64_t j = threadIdx.x * N; j < params.width; j += kThreads * N) {
    float sum[N] = {};
#pragma unroll 4
    for (std::int64_t at = begin; at < end; ++at) {
      float values[N];
      load<N>(params.rows.row<const T>(params.order[at]) + j, values);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += values[i];
    }
    G* to = params.table.row<G>(token) + j;
    float values[N];
    load<N>(to, values);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] += sum[i];
    store<N>(values, to);
  }
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
      backward<T, G, N><<<static_cast<unsigned>(params.count), kThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace lathe::ops::cuda
