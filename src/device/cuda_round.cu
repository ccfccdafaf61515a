#include <cuda_bf16.h>

#include <algorithm>

#include "device/cuda_round.h"

namespace lathe {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 4096;  // enough to fill any card; a thread takes many elements

__global__ void round_kernel(__nv_bfloat16* to, const float* from, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    to[i] = __float2bfloat16_rn(from[i]);
}

}  // namespace

cudaError_t round_to_bf16(void* to, const float* from, std::int64_t count, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(std::min((count + kThreads - 1) / kThreads, kMaxBlocks));
  round_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(to), from, count);
  return cudaGetLastError();
}

}  // namespace lathe
