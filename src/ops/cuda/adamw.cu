#include "ops/cuda/adamw_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, typename G, int N>
__device__ __forceinline__ void update(const AdamWParams& params, std::int64_t at) {
  float parameter[N], gradient[N], m[N], v[N];
  load<N>(static_cast<const T*>(params.parameter) + at, parameter);
  load<N>(static_cast<const G*>(params.gradient) + at, gradient);
  load<N>(static_cast<const T*>(params.m) + at, m);
  load<N>(static_cast<const T*>(params.v) + at, v);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float g = gradient[i] * params.grad_scale;
    m[i] = params.beta1 * m[i] + params.rest1 * g;
    v[i] = params.beta2 * v[i] + params.rest2 * (g * g);
    parameter[i] =
        params.keep * parameter[i] - params.step_size * m[i] / (sqrtf(v[i]) * params.root_scale + params.eps);
  }
  store<N>(parameter, static_cast<T*>(params.parameter) + at);
  store<N>(m, static_cast<T*>(params.m) + at);
  store<N>(v, static_cast<T*>(params.v) + at);
  if (params.rounded != nullptr) store<N>(parameter, static_cast<__nv_bfloat16*>(params.rounded) + at);
}

template <typename T, typename G, int N>
__global__ void __launch_bounds__(kThreads) adamw(AdamWParams params) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t packs = params.count / N;
  if (index < packs) update<T, G, N>(params, index * N);
  const std::int64_t rest = packs * N + index;
  if (N > 1 && rest < params.count) update<T, G, 1>(params, rest);
}

}  // namespace

cudaError_t launch_adamw(const AdamWParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    return with_element(params.gradient_element, [&]<typename G>() {
      const std::int64_t threads = params.count / N + N;  // the rest is less than N
      adamw<T, G, N><<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace lathe::ops::cuda
