#include "ops/cuda/permute_launch.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;

// A block takes a token.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) scatter(PermuteParams params) {
  const T* from = params.tokens.row<const T>(blockIdx.x);
  const std::int32_t* map = params.row_map.row<const std::int32_t>(blockIdx.x);
  for (std::int64_t i = threadIdx.x * N; i < params.width; i += blockDim.x * N) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from + i);
    for (int j = 0; j < params.k; ++j) *reinterpret_cast<Pack<T, N>*>(params.sorted.row<T>(map[j]) + i) = pack;
  }
}

template <int N, typename T>
__device__ __forceinline__ void add(const T* from, float (&sum)[N]) {
  float values[N];
  load<N>(from, values);
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += values[i];
}

// tokens[t] = (tokens[t] or residual[t] + shared[t]) + the sum over j of the sorted rows, times their weights if there
// are any. Summed in fp32 in the order of j, rounded once.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) gather(PermuteParams params) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t* map = params.row_map.row<const std::int32_t>(row);
  const float* weights = params.weights.data != nullptr ? params.weights.row<const float>(row) : nullptr;
  T* to = params.tokens.row<T>(row);
  for (std::int64_t i = threadIdx.x * N; i < params.width; i += blockDim.x * N) {
    float sum[N] = {};
    if (params.accumulate) add<N>(to + i, sum);
    if (params.residual.data != nullptr) add<N>(params.residual.row<const T>(row) + i, sum);
    if (params.shared.data != nullptr) add<N>(params.shared.row<const T>(row) + i, sum);
#pragma unroll 2
    for (int j = 0; j < params.k; ++j) {
      float values[N];
      load<N>(params.sorted.row<const T>(map[j]) + i, values);
      const float weight = weights != nullptr ? weights[j] : 1.f;
#pragma unroll
      for (int n = 0; n < N; ++n) sum[n] += weight * values[n];
    }
    store<N>(sum, to + i);
  }
}

// A block takes a choice of a token: dsorted = weight * dout, dweight = dout . sorted. The blocks of a token are
// neighbours, so that its row of dout comes from memory once. Each element is read before it is written,
// by the thread that writes it: dsorted may be sorted.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) spread(PermuteParams params) {
  const std::int64_t row = blockIdx.x / static_cast<unsigned>(params.k);
  const auto j = static_cast<int>(blockIdx.x % static_cast<unsigned>(params.k));
  const std::int64_t place = params.row_map.row<const std::int32_t>(row)[j];
  const float weight = params.weights.row<const float>(row)[j];
  const T* dout = params.tokens.row<const T>(row);
  const T* x = params.sorted.row<T>(place);
  T* dx = params.dsorted.row<T>(place);
  float dot = 0;
  for (std::int64_t i = threadIdx.x * N; i < params.width; i += blockDim.x * N) {
    float gradient[N], values[N];
    load<N>(dout + i, gradient);
    load<N>(x + i, values);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      dot += gradient[n] * values[n];
      gradient[n] *= weight;
    }
    store<N>(gradient, dx + i);
  }
  dot = block_sum(dot);
  if (threadIdx.x == 0) params.dweights.row<float>(row)[j] = dot;
}

}  // namespace

cudaError_t launch_permute_forward(const PermuteParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    scatter<T, N><<<static_cast<unsigned>(params.rows), threads_for(params.width / N, kThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launch_permute_backward(const PermuteParams& params, cudaStream_t stream) {
  return launch_unpermute_forward(params, stream);  // without weights
}

cudaError_t launch_unpermute_forward(const PermuteParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    gather<T, N><<<static_cast<unsigned>(params.rows), threads_for(params.width / N, kThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launch_unpermute_backward(const PermuteParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    const auto blocks = static_cast<unsigned>(params.rows * params.k);
    spread<T, N><<<blocks, threads_for(params.width / N, kThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
