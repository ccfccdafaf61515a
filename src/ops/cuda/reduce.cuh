// Sums over warps and blocks, in an order that depends on the number of threads alone.
#pragma once

#include <cuda_runtime.h>

namespace lathe::ops::cuda {

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
  return value;
}

// The sum over all threads of the block (whole warps), known to each. Every thread calls it.
template <typename T>
__device__ __forceinline__ T block_sum(T value) {
  __shared__ T parts[32];
  value = warp_sum(value);
  __syncthreads();  // the parts of an earlier call have been read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  T total = parts[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) total += parts[warp];
  return total;
}

__device__ __forceinline__ float block_max(float value) {
  __shared__ float parts[32];
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float most = parts[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) most = fmaxf(most, parts[warp]);
  return most;
}

}  // namespace lathe::ops::cuda
