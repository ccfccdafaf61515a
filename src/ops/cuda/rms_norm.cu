#include "ops/cuda/reduce.cuh"
#include "ops/cuda/rms_norm_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kMostThreads = 256;
constexpr int kMostPacks = 512;   // of a row that a block holds in registers, one a thread
constexpr int kRowsPerChunk = 8;  // of the backward

// A block a row. With a residual, the sum is rounded as it is stored and the norm is that of the stored sum: what the
// backward will read.
template <typename T, int N>
__global__ void __launch_bounds__(kMostThreads) forward(RmsNormParams params) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t first = threadIdx.x * N, step = blockDim.x * N;
  const T* x = params.x.row<const T>(row);
  float squares = 0;
  for (std::int64_t j = first; j < params.width; j += step) {
    float values[N];
    load<N>(x + j, values);
    if (params.residual.data != nullptr) {
      float other[N];
      load<N>(params.residual.row<const T>(row) + j, other);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = to_float(from_float<T>(values[i] + other[i]));
      store<N>(values, params.sum.row<T>(row) + j);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) squares += values[i] * values[i];
  }
  const float rstd = 1.f / sqrtf(block_sum(squares) / static_cast<float>(params.width) + params.eps);
  if (threadIdx.x == 0 && params.rstd != nullptr) params.rstd[row] = rstd;
  const T* from = params.residual.data != nullptr ? params.sum.row<const T>(row) : x;
  T* out = params.out.row<T>(row);
  // Each thread reads what it wrote itself.
  for (std::int64_t j = first; j < params.width; j += step) {
    float values[N], weight[N];
    load<N>(from + j, values);
    load<N>(static_cast<const T*>(params.weight) + j, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] *= rstd * weight[i];
    store<N>(values, out + j);
  }
}

// With n = x * rstd and g = dout * weight: dx = rstd * (g - n * mean(g * n)) + dsum, and dout * n is the row's part of
// the weight's gradient. A block takes a chunk of rows; a thread has the same columns in each, writes only elements
// that it alone reads, after it has read them (dx may be dout or dsum), and adds up its columns in shared memory.
template <typename T, int N>
__global__ void __launch_bounds__(kMostThreads) backward(RmsNormParams params) {
  extern __shared__ __align__(16) float dweight[];
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kRowsPerChunk;
  const std::int64_t first = threadIdx.x * N, step = blockDim.x * N;
  const T* weights = static_cast<const T*>(params.weight);
  for (std::int64_t row = first_row; row < first_row + kRowsPerChunk && row < params.rows; ++row) {
    const T* x = params.x.row<const T>(row);
    const T* dout = params.dout.row<const T>(row);
    float product = 0;
    for (std::int64_t j = first; j < params.width; j += step) {
      float values[N], gradient[N], weight[N];
      load<N>(x + j, values);
      load<N>(dout + j, gradient);
      load<N>(weights + j, weight);
#pragma unroll
      for (int i = 0; i < N; ++i) product += gradient[i] * values[i] * weight[i];
    }
    const float rstd = params.rstd[row];
    const float factor = block_sum(product) * rstd * rstd / static_cast<float>(params.width);
    for (std::int64_t j = first; j < params.width; j += step) {
      float values[N], gradient[N], weight[N], sums[N] = {};
      load<N>(x + j, values);
      load<N>(dout + j, gradient);
      load<N>(weights + j, weight);
      if (row > first_row) load<N>(dweight + j, sums);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sums[i] += gradient[i] * values[i] * rstd;
        values[i] = rstd * (gradient[i] * weight[i] - values[i] * factor);
      }
      store<N>(sums, dweight + j);
      if (params.dsum.data != nullptr) {
        float other[N];
        load<N>(params.dsum.row<const T>(row) + j, other);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] += other[i];
      }
      store<N>(values, params.dx.row<T>(row) + j);
    }
  }
  float* partials = params.partials + blockIdx.x * params.width;
  for (std::int64_t j = first; j < params.width; j += step) {
    float sums[N];
    load<N>(dweight + j, sums);
    store<N>(sums, partials + j);
  }
}

// As above, for rows of at most kMostPacks packs: a thread has one of each, the next row's come while this one is
// worked on, and the weight's gradient is in registers too.
template <typename T, int N>
__global__ void __launch_bounds__(kMostPacks) backward_in_registers(RmsNormParams params) {
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kRowsPerChunk;
  const std::int64_t end = min(first_row + kRowsPerChunk, params.rows);
  const std::int64_t j = threadIdx.x * N;
  const bool mine = j < params.width, residual = params.dsum.data != nullptr;
  struct Row {
    Pack<T, N> x, dout, dsum;
    float rstd;
  };
  const auto load_row = [&](std::int64_t row) {
    Row next{};
    if (mine) {
      next.x = load_pack<N>(params.x.row<const T>(row) + j);
      next.dout = load_pack<N>(params.dout.row<const T>(row) + j);
      if (residual) next.dsum = load_pack<N>(params.dsum.row<const T>(row) + j);
    }
    next.rstd = params.rstd[row];
    return next;
  };
  float weight[N] = {}, sums[N] = {};
  if (mine) load<N>(static_cast<const T*>(params.weight) + j, weight);
  Row next = load_row(first_row);
  for (std::int64_t row = first_row; row < end; ++row) {
    const Row now = next;
    if (row + 1 < end) next = load_row(row + 1);
    float product = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) product += to_float(now.dout.values[i]) * to_float(now.x.values[i]) * weight[i];
    const float factor = block_sum(product) * now.rstd * now.rstd / static_cast<float>(params.width);
    float dx[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float x = to_float(now.x.values[i]), dout = to_float(now.dout.values[i]);
      sums[i] += dout * x * now.rstd;
      dx[i] = now.rstd * (dout * weight[i] - x * factor);
      if (residual) dx[i] += to_float(now.dsum.values[i]);
    }
    if (mine) store<N>(dx, params.dx.row<T>(row) + j);
  }
  if (mine) store<N>(sums, params.partials + blockIdx.x * params.width + j);
}

}  // namespace

cudaError_t launch_rms_norm_forward(const RmsNormParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    const int threads = threads_for(params.width / N, kMostThreads);
    forward<T, N><<<static_cast<unsigned>(params.rows), threads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

std::int64_t rms_norm_chunks(std::int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

cudaError_t launch_rms_norm_backward(const RmsNormParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.width > kMostRmsNormWidth) return cudaErrorInvalidValue;
  return with_packs(params.element, params.wide, [&]<typename T, int N>() {
    const auto chunks = static_cast<unsigned>(rms_norm_chunks(params.rows));
    if (params.width <= std::int64_t{kMostPacks} * N) {
      backward_in_registers<T, N><<<chunks, threads_for(params.width / N, kMostPacks), 0, stream>>>(params);
      return cudaGetLastError();
    }
    const auto shared = static_cast<std::size_t>(params.width) * sizeof(float);
    const cudaError_t result =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(backward<T, N>), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(kMostRmsNormWidth * sizeof(float)));
    if (result != cudaSuccess) return result;
    const int threads = threads_for(params.width / N, kMostThreads);
    backward<T, N><<<chunks, threads, shared, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
