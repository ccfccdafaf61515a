#include "ops/cuda/cross_entropy_launch.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kSumThreads = 1024;

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

// A block takes a row: one pass for the sum, one for the gradient. `dlogits` may be `logits`: a thread writes what it
// alone reads, and the target's logit is read before.
template <int N>
__global__ void __launch_bounds__(kThreads) cross_entropy(CrossEntropyParams params) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t target = params.targets[row];
  const float* logits = params.logits.row<float>(row);
  float* dlogits = params.dlogits.data != nullptr ? params.dlogits.row<float>(row) : nullptr;
  const std::int64_t first = threadIdx.x * N, step = kThreads * N;
  if (target == params.ignored) {
    if (threadIdx.x == 0) params.losses[row] = 0;
    if (dlogits == nullptr) return;
    constexpr float kZeros[N] = {};
    for (std::int64_t j = first; j < params.vocab; j += step) store<N>(kZeros, dlogits + j);
    return;
  }
  if (target < 0 || target >= params.vocab) __trap();
  const float chosen = logits[target];
  Exponentials exponentials;
#pragma unroll 4
  for (std::int64_t j = first; j < params.vocab; j += step) {
    float values[N];
    load<N>(logits + j, values);
    exponentials.add(values);
  }
  const float most = block_max(exponentials.most);
  // 0 for a thread that saw no value, or only -inf: its sum is 0 then, or NaN, which stays.
  const float factor = exponentials.most == -INFINITY ? 1.f : __expf(exponentials.most - most);
  const double total = block_sum(static_cast<double>(exponentials.sum * factor));
  if (threadIdx.x == 0) params.losses[row] = log(total) + (static_cast<double>(most) - static_cast<double>(chosen));
  if (dlogits == nullptr) return;
  const float scale = static_cast<float>(params.scale / total);
  const float whole = static_cast<float>(params.scale);
#pragma unroll 4
  for (std::int64_t j = first; j < params.vocab; j += step) {
    float values[N];
    load<N>(logits + j, values);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[i] = __expf(values[i] - most) * scale;
      if (j + i == target) values[i] -= whole;
    }
    store<N>(values, dlogits + j);
  }
}

__global__ void __launch_bounds__(kSumThreads) add_losses(CrossEntropyParams params) {
  double sum = 0;
  for (std::int64_t row = threadIdx.x; row < params.rows; row += kSumThreads) sum += params.losses[row];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *params.loss += params.scale * sum;
}

}  // namespace

cudaError_t launch_cross_entropy(const CrossEntropyParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.wide)
    cross_entropy<4><<<static_cast<unsigned>(params.rows), kThreads, 0, stream>>>(params);
  else
    cross_entropy<1><<<static_cast<unsigned>(params.rows), kThreads, 0, stream>>>(params);
  const cudaError_t result = cudaGetLastError();
  if (result != cudaSuccess) return result;
  add_losses<<<1, kSumThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
