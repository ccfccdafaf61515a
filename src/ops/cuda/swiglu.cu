#include "ops/cuda/swiglu_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kMostThreads = 256;

// By e^-|x|, which cannot overflow.
__device__ __forceinline__ float sigmoid(float x) {
  const float e = __expf(-fabsf(x));
  const float inverse = 1.f / (1.f + e);
  return x < 0 ? e * inverse : inverse;
}

// A block takes a row.
template <typename T, int N>
__global__ void __launch_bounds__(kMostThreads) forward(SwigluParams params) {
  const T* gates = params.gate_up.row<T>(blockIdx.x);
  T* outs = params.out.row<T>(blockIdx.x);
  for (std::int64_t j = threadIdx.x * N; j < params.width; j += blockDim.x * N) {
    float gate[N], up[N], out[N];
    load<N>(gates + j, gate);
    load<N>(gates + params.width + j, up);
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    store<N>(out, outs + j);
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kMostThreads) backward(SwigluParams params) {
  const T* gates = params.gate_up.row<T>(blockIdx.x);
  const T* douts = params.dout.row<T>(blockIdx.x);
  T* dgates = params.dgate_up.row<T>(blockIdx.x);
  for (std::int64_t j = threadIdx.x * N; j < params.width; j += blockDim.x * N) {
    float gate[N], up[N], dout[N], dgate[N], dup[N];
    load<N>(gates + j, gate);
    load<N>(gates + params.width + j, up);
    load<N>(douts + j, dout);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float s = sigmoid(gate[i]);
      const float silu = gate[i] * s;
      dgate[i] = dout[i] * up[i] * (s + silu * (1.f - s));
      dup[i] = dout[i] * silu;
    }
    store<N>(dgate, dgates + j);
    store<N>(dup, dgates + params.width + j);
  }
}

}  // namespace

cudaError_t launch_swiglu_forward(const SwigluParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    forward<T, N>
        <<<static_cast<unsigned>(params.rows), threads_for(params.width / N, kMostThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launch_swiglu_backward(const SwigluParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    backward<T, N>
        <<<static_cast<unsigned>(params.rows), threads_for(params.width / N, kMostThreads), 0, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
