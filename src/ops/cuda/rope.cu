#include "ops/cuda/rope_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 128;

// A thread turns N / 2 pairs; it has read all of them when it writes, so `out` may be `x`. Two elements are loaded one
// by one: a row of any alignment.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) turn(RopeParams params) {
  const int packs = static_cast<int>(params.half * 2 / N);
  const int index = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (index >= packs * params.heads) return;
  const std::int64_t token = blockIdx.x;
  const int head = index / packs;
  const int pack = index % packs;
  const T* x = static_cast<const T*>(params.x) + token * params.x_token + head * params.x_head + pack * N;
  T* out = static_cast<T*>(params.out) + token * params.out_token + head * params.out_head + pack * N;
  const std::int64_t position = params.positions[token * params.position_stride];
  const float* cos = params.cos + position * params.cos_stride + pack * (N / 2);
  const float* sin = params.sin + position * params.sin_stride + pack * (N / 2);
  float values[N];
  if constexpr (N == 2) {
    values[0] = to_float(x[0]);
    values[1] = to_float(x[1]);
  } else {
    load<N>(x, values);
  }
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const float c = cos[i];
    const float s = params.direction * sin[i];
    const float even = values[2 * i];
    const float odd = values[2 * i + 1];
    values[2 * i] = even * c - odd * s;
    values[2 * i + 1] = even * s + odd * c;
  }
  if constexpr (N == 2) {
    out[0] = from_float<T>(values[0]);
    out[1] = from_float<T>(values[1]);
  } else {
    store<N>(values, out);
  }
}

template <typename T, int N>
cudaError_t launch(const RopeParams& params, cudaStream_t stream) {
  const std::int64_t packs = params.heads * (params.half * 2 / N);
  const dim3 grid(static_cast<unsigned>(params.tokens), static_cast<unsigned>((packs + kThreads - 1) / kThreads));
  turn<T, N><<<grid, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_rope(const RopeParams& params, cudaStream_t stream) {
  if (params.tokens == 0 || params.heads == 0 || params.half == 0) return cudaSuccess;
  return with_element(params.element, [&]<typename T>() {
    return params.wide ? launch<T, 16 / static_cast<int>(sizeof(T))>(params, stream) : launch<T, 2>(params, stream);
  });
}

}  // namespace lathe::ops::cuda
