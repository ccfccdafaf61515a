// What follows the backward's main kernel: dQ from fp32 fragments and dk_pe from fp32 sums to bf16 rows.
#include "ops/cuda/mla_sm90/backward_dq.cuh"
#include "ops/cuda/mla_sm90/backward_launch.h"
#include "ops/cuda/mla_sm90/launch.h"
#include "sm90/control.cuh"

namespace lathe::ops::cuda {
namespace {

using Traits = BackwardTraits;

constexpr int kThreads = 128;  // as the consumer that wrote a half of dQ

__device__ void convert_half(const BackwardParams& p, int head, int tile, int half) {
  const BackwardDqHalf at(p, head, tile, half);
  if (at.rows <= 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  float4 values[kDqFragments];
  load_dq(p, at, thread, values);
  store_dq(p, at, thread, values);
}

// A thread has 4 columns of a key: the sum over the heads, always in the same order, unless it has been made.
__device__ void sum_dk_pe(const BackwardParams& p, int index) {
  constexpr int kRowThreads = Traits::kRope / 4;
  if (index >= p.key_rows * kRowThreads) return;
  const auto* const from = reinterpret_cast<const float4*>(p.workspace.dk_pe) + index;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int head = 0; head < (p.deterministic ? p.heads : 1); ++head) {
    const float4 x = __ldcs(from + static_cast<int64_t>(head) * p.key_rows * kRowThreads);
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
  }
  const int row = index / kRowThreads;
  const int batch = is_packed(p) ? 0 : row / p.s_k;
  __nv_bfloat16* const to = p.dk_pe.at(batch, row - batch * p.s_k, 0) + index % kRowThreads * 4;
  *reinterpret_cast<uint2*>(to) = make_uint2(sm90::pack_bf16(sum.x, sum.y), sm90::pack_bf16(sum.z, sum.w));
}

__global__ void __launch_bounds__(kThreads) convert_backward(const __grid_constant__ BackwardParams p, int sum_blocks) {
  sm90::wait_for_previous_kernel();
  const int block = static_cast<int>(blockIdx.x);
  if (block < sum_blocks) {
    sum_dk_pe(p, block * kThreads + static_cast<int>(threadIdx.x));
    return;
  }
  const int half = block - sum_blocks;
  const int head = half / 2 / p.tiles;
  convert_half(p, head, half / 2 - head * p.tiles, half % 2);
}

// Gradients of tensors that nothing depends on: a warp a row.
__global__ void __launch_bounds__(kThreads) zero_rows(BackwardRows to, int batches, int tokens, int heads, int chunks) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int64_t of_batch = static_cast<int64_t>(tokens) * heads;
  if (row >= batches * of_batch) return;
  const int batch = static_cast<int>(row / of_batch);
  const int token = static_cast<int>(row % of_batch / heads);
  const int chunk = static_cast<int>(threadIdx.x % 32);
  if (chunk < chunks)
    reinterpret_cast<uint4*>(to.at(batch, token, static_cast<int>(row % heads)))[chunk] = make_uint4(0, 0, 0, 0);
}

// Shared memory that a block asks for only to have room: with it a multiprocessor holds no more than its share of the
// blocks. They begin before the main kernel has ended, and would crowd where it ends first.
constexpr int kMostSpreadingBytes = 226 * 1024;  // a block's limit less what is reserved for each
int spreading_bytes(int blocks, int multiprocessors) {
  constexpr int kReserved = 1024;
  constexpr int kRegisterLimit = 8;  // blocks of a multiprocessor that its registers are enough for
  const int share = (blocks + multiprocessors - 1) / multiprocessors;
  return share < kRegisterLimit ? (kMostSpreadingBytes + kReserved) / share - kReserved : 0;
}

}  // namespace

cudaError_t prepare_convert_kernel() {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(convert_backward),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, kMostSpreadingBytes);
}

cudaError_t launch_convert_backward(const BackwardParams& params, cudaStream_t stream) {
  const int64_t sum_threads = static_cast<int64_t>(params.key_rows) * Traits::kRope / 4;
  const int sum_blocks = static_cast<int>((sum_threads + kThreads - 1) / kThreads);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  const int blocks = sum_blocks + (params.converting_blocks > 0 ? 0 : params.tiles * params.heads * 2);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(spreading_bytes(blocks, params.multiprocessors));
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, convert_backward, params, sum_blocks);
}

cudaError_t launch_zero_rows(const BackwardRows& to, int batches, int tokens, int heads, int columns,
                             cudaStream_t stream) {
  const int64_t rows = static_cast<int64_t>(batches) * tokens * heads;
  if (rows == 0) return cudaSuccess;
  return launch_plain(zero_rows, (rows + kThreads / 32 - 1) / (kThreads / 32), kThreads, stream, to, batches, tokens,
                      heads, columns / 8);
}

}  // namespace lathe::ops::cuda
