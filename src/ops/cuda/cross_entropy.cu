#include "ops/cuda/cross_entropy_launch.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vectors.cuh"
#include "sm90/barrier.cuh"
#include "sm90/cluster.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumThreads = 1024;
constexpr int kMostSlices = 8;                // a portable cluster's blocks
constexpr int kSliceBytes = 52 << 10;         // four blocks an SM: some load while others store
constexpr int kMostSliceBytes = 220 << 10;    // one block an SM
constexpr int kElementBytes = sizeof(float);  // of logits

// The largest value so far and the sum of exp(value - largest). NaN is never the largest, and shows in the sum.
struct Exponentials {
  float most = -INFINITY;
  float sum = 0;

  // Where every value is -inf so far, exp(value - 0) = 0.
  __device__ float origin() const { return most == -INFINITY ? 0.f : most; }

  template <int N>
  __device__ void add(const float (&values)[N]) {
    float larger = most;
#pragma unroll
    for (int i = 0; i < N; ++i) larger = fmaxf(larger, values[i]);
    if (larger > most) {
      sum *= __expf(most - larger);
      most = larger;
    }
    const float from = origin();
#pragma unroll
    for (int i = 0; i < N; ++i) sum += __expf(values[i] - from);
  }
};

// The same of a slice, as blocks tell it each other.
struct alignas(16) SliceSum {
  float most;
  int padding;
  double sum;
};

// Sums of exponentials of two origins: 1 for a sum over no value, or only -inf: it is 0 then, or NaN, which stays.
__device__ __forceinline__ float change_of_origin(float from, float to) {
  return from == -INFINITY ? 1.f : __expf(from - to);
}

// A cluster takes a row, each block a slice of it, which it reads once and holds in shared memory until the whole row's
// sum is known. kHeld = false: a row too long for that; one block reads it twice.
// Nothing of a row is written before its blocks have read all of it, or, in the second reading, only what lies before:
// the gradient may take the place of the logits, in bf16 the front half of each row.
template <typename T, int N, bool kHeld>
__global__ void __launch_bounds__(kThreads) cross_entropy(CrossEntropyParams params) {
  extern __shared__ __align__(16) float held[];
  __shared__ SliceSum slices[kMostSlices];
  const unsigned rank = blockIdx.x % params.slices;
  const std::int64_t row = blockIdx.x / params.slices;
  const std::int32_t target = params.targets[row];
  const std::int64_t begin = rank * params.slice;
  const auto count = static_cast<int>(params.vocab - begin < params.slice ? params.vocab - begin : params.slice);
  const int first = static_cast<int>(threadIdx.x) * N;
  constexpr int kStep = kThreads * N;
  const float* logits = params.logits.row<const float>(row) + begin;
  T* dlogits = params.dlogits.data != nullptr ? params.dlogits.row<T>(row) + begin : nullptr;
  if (target == params.ignored) {
    if (rank == 0 && threadIdx.x == 0) params.losses[row] = 0;
    if (dlogits == nullptr) return;
    constexpr float kZeros[N] = {};
    for (int j = first; j < count; j += kStep) store<N>(kZeros, dlogits + j);
    return;
  }
  if (target < 0 || target >= params.vocab) __trap();
  sm90::cluster_barrier_arrive_relaxed();
  const float chosen = params.logits.row<const float>(row)[target];

  Exponentials exponentials;
  constexpr int kAtOnce = N == 1 ? 16 : 8;
  for (int j = first; j < count; j += kAtOnce * kStep) {
    float values[kAtOnce][N];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (j + i * kStep < count) load<N>(logits + j + i * kStep, values[i]);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (j + i * kStep >= count) break;
      if constexpr (kHeld) store<N>(values[i], held + j + i * kStep);
      exponentials.add(values[i]);
    }
  }
  const float most_here = block_max(exponentials.most);
  const double sum_here =
      block_sum(static_cast<double>(exponentials.sum * change_of_origin(exponentials.most, most_here)));

  sm90::cluster_barrier_wait();  // every block has begun: its shared memory can be written
  if (threadIdx.x < params.slices) {
    const std::uint32_t to = sm90::cluster_address(sm90::shared_address(&slices[rank]), threadIdx.x);
    sm90::cluster_store_words(to, __float_as_int(most_here), 0, __double2loint(sum_here), __double2hiint(sum_here));
  }
  sm90::cluster_sync();
  float most = -INFINITY;
  for (unsigned i = 0; i < params.slices; ++i) most = fmaxf(most, slices[i].most);
  double total = 0;
  for (unsigned i = 0; i < params.slices; ++i)
    total += slices[i].sum * static_cast<double>(change_of_origin(slices[i].most, most));

  if (rank == 0 && threadIdx.x == 0)
    params.losses[row] = log(total) + (static_cast<double>(most) - static_cast<double>(chosen));
  if (dlogits == nullptr) return;
  const float scale = static_cast<float>(params.scale / total);
  const auto gradient = [&](float logit) { return __expf(logit - most) * scale; };
  if constexpr (kHeld) {
#pragma unroll 4
    for (int j = first; j < count; j += kStep) {
      float values[N];
      load<N>(held + j, values);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = gradient(values[i]);
      store<N>(values, dlogits + j);
    }
  } else {
    for (int step = 0; step < count; step += kStep) {
      const int j = step + first;
      float values[N];
      if (j < count) load<N>(logits + j, values);
      __syncthreads();  // all have read this step
      if (j >= count) continue;
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = gradient(values[i]);
      store<N>(values, dlogits + j);
    }
  }
  __syncthreads();
  const std::int64_t at = target - begin;
  if (threadIdx.x == 0 && at >= 0 && at < count)
    dlogits[at] = from_float<T>(gradient(chosen) - static_cast<float>(params.scale));
}

__global__ void __launch_bounds__(kSumThreads) add_losses(CrossEntropyParams params) {
  double sum = 0;
  for (std::int64_t row = threadIdx.x; row < params.rows; row += kSumThreads) sum += params.losses[row];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *params.loss += params.scale * sum;
}

// Elements of each of `slices` slices of a row, whole packs of N.
template <int N>
std::int64_t slice_of(std::int64_t vocab, unsigned slices) {
  return ((vocab + N - 1) / N + slices - 1) / slices * N;
}

template <typename T, int N>
cudaError_t launch(CrossEntropyParams params, cudaStream_t stream) {
  params.slices = 1;
  while (params.slices < kMostSlices && slice_of<N>(params.vocab, params.slices) * kElementBytes > kSliceBytes)
    params.slices *= 2;
  params.slice = slice_of<N>(params.vocab, params.slices);
  const bool held = params.slice * kElementBytes <= kMostSliceBytes;
  if (!held) {
    params.slices = 1;
    params.slice = params.vocab;
  }
  const auto shared = held ? static_cast<std::size_t>(params.slice * kElementBytes) : 0;
  void (*const kernel)(CrossEntropyParams) = held ? cross_entropy<T, N, true> : cross_entropy<T, N, false>;
  // The most, not what this call needs: other threads launch it too.
  const cudaError_t result =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           held ? static_cast<int>(kMostSliceBytes) : 0);
  if (result != cudaSuccess) return result;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = params.slices;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.rows) * params.slices);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace

cudaError_t launch_cross_entropy(const CrossEntropyParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  const cudaError_t result = with_element(params.gradient_element, [&]<typename T>() {
    return params.wide ? launch<T, 4>(params, stream) : launch<T, 1>(params, stream);
  });
  if (result != cudaSuccess) return result;
  add_losses<<<1, kSumThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
