#include "ops/cuda/reduce.cuh"
#include "ops/cuda/router_launch.h"

namespace lathe::ops::cuda {
namespace {

constexpr int kWarps = 4;  // a row each
constexpr float kNormalizeEps = 1e-20f;

// What a candidate is worth. Scores lie in [0, 1]; NaN goes last, so that indices stay valid whatever the logits.
constexpr float kNan = -1, kTaken = -2;

__device__ __forceinline__ float worth(float score) { return score != score ? kNan : score; }

// The place of the largest of `values`; of equal ones the first. Known to all lanes.
__device__ int largest(const float* values, int count) {
  float best = kTaken - 1;
  int place = count;
  for (int i = static_cast<int>(threadIdx.x % 32); i < count; i += 32)
    if (values[i] > best) {
      best = values[i];
      place = i;
    }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(~0u, best, distance);
    const int at = __shfl_xor_sync(~0u, place, distance);
    if (other > best || (other == best && at < place)) {
      best = other;
      place = at;
    }
  }
  return place;
}

// Marks `place` as taken by the first lane, seen by all.
__device__ __forceinline__ void take(float* values, int place, float mark) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) values[place] = mark;
  __syncwarp();
}

// Candidates of closed groups become taken. `groups` is room for a value each.
__device__ void close_groups(const RouterParams& params, float* values, float* groups) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int size = params.experts / params.groups;
  for (int group = lane; group < params.groups; group += 32) {
    float most = kTaken;
    for (int i = 0; i < size; ++i) most = fmaxf(most, values[group * size + i]);
    groups[group] = most;
  }
  __syncwarp();
  for (int i = 0; i < params.topk_group; ++i) take(groups, largest(groups, params.groups), kTaken);
  for (int i = lane; i < params.experts; i += 32)
    if (groups[i / size] != kTaken) values[i] = kTaken;
  __syncwarp();
}

__global__ void __launch_bounds__(kWarps * 32) forward(RouterParams params) {
  extern __shared__ float shared[];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= params.rows) return;
  float* values = shared + warp * (params.experts + params.groups);
  const float* logits = params.logits.row<float>(row);  // may be the scores
  float* scores = params.scores.row<float>(row);
  float most = -INFINITY;
  for (int i = lane; i < params.experts; i += 32) most = fmaxf(most, values[i] = logits[i]);
  most = warp_max(most);
  float sum = 0;
  for (int i = lane; i < params.experts; i += 32) sum += values[i] = expf(values[i] - most);
  const float scale = 1.f / warp_sum(sum);
  for (int i = lane; i < params.experts; i += 32) {
    const float score = values[i] * scale;
    scores[i] = score;
    values[i] = worth(score);
  }
  __syncwarp();
  if (params.groups > 0) close_groups(params, values, values + params.experts);

  std::int32_t* indices = params.indices.row<std::int32_t>(row);
  float* weights = params.weights.row<float>(row);
  float chosen_sum = kNormalizeEps;
  for (int j = 0; j < params.k; ++j) {
    int place;
    if (params.force_balanced) {
      place = static_cast<int>((row * params.k + j) % params.experts);
    } else {
      place = largest(values, params.experts);
      take(values, place, kTaken);
    }
    const float score = scores[place];
    chosen_sum += score;
    if (lane == 0) {
      indices[j] = place;
      weights[j] = params.normalize ? score : score * params.scaling_factor;
    }
  }
  if (!params.normalize || lane != 0) return;
  const float factor = 1.f / chosen_sum;
  for (int j = 0; j < params.k; ++j) weights[j] *= factor;
}

// The gradient of score `index` that comes by way of the weights, or 0.
struct WeightGradient {
  const std::int32_t* indices;
  const float* dweights;
  float factor, dot;  // dscore = (dweight - dot) * factor
  int k;

  __device__ float at(int index) const {
    float sum = 0;
    for (int j = 0; j < k; ++j)
      if (indices[j] == index) sum += (dweights[j] - dot) * factor;
    return sum;
  }
};

__device__ WeightGradient weight_gradient(const RouterParams& params, std::int64_t row, const float* scores) {
  WeightGradient gradient{params.indices.row<const std::int32_t>(row), params.dweights.row<const float>(row),
                          params.scaling_factor, 0.f, params.k};
  if (!params.normalize) return gradient;
  float sum = kNormalizeEps;
  for (int j = 0; j < params.k; ++j) sum += scores[gradient.indices[j]];
  gradient.factor = 1.f / sum;
  for (int j = 0; j < params.k; ++j)
    gradient.dot += gradient.dweights[j] * scores[gradient.indices[j]] * gradient.factor;
  return gradient;
}

__global__ void __launch_bounds__(kWarps * 32) backward(RouterParams params) {
  extern __shared__ float shared[];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= params.rows) return;
  float* dscores = shared + warp * params.experts;
  const float* scores = params.scores.row<const float>(row);
  const WeightGradient by_weights = weight_gradient(params, row, scores);
  const float* balance =
      params.dscores.data != nullptr ? params.dscores.row<const float>(row / params.rows_per_scope) : nullptr;
  float dot = 0;
  for (int i = lane; i < params.experts; i += 32) {
    const float gradient = (balance != nullptr ? balance[i] : 0.f) + by_weights.at(i);
    dscores[i] = gradient;
    dot += scores[i] * gradient;
  }
  dot = warp_sum(dot);
  float* dlogits = params.dlogits.row<float>(row);
  for (int i = lane; i < params.experts; i += 32) dlogits[i] = scores[i] * (dscores[i] - dot);
}

unsigned blocks_for(const RouterParams& params) { return static_cast<unsigned>((params.rows + kWarps - 1) / kWarps); }

}  // namespace

cudaError_t launch_router_forward(const RouterParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  const std::size_t shared = kWarps * sizeof(float) * static_cast<std::size_t>(params.experts + params.groups);
  forward<<<blocks_for(params), kWarps * 32, shared, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launch_router_backward(const RouterParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  const std::size_t shared = kWarps * sizeof(float) * static_cast<std::size_t>(params.experts);
  backward<<<blocks_for(params), kWarps * 32, shared, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
