// What follows the backward's main kernel: dQ from fp32 fragments and dk_pe from fp32 sums to bf16 rows.
#include "ops/cuda/mla_sm90/backward_jobs.cuh"
#include "ops/cuda/mla_sm90/backward_launch.h"
#include "ops/cuda/mla_sm90/launch.h"
#include "sm90/control.cuh"

namespace lathe::ops::cuda {
namespace {

using Traits = BackwardTraits;

constexpr int kThreads = 128;  // as the consumer that wrote a half of dQ

// words[i] of lane t of a quad becomes words[t] of lane i, in two exchanges.
__device__ void transpose_quad(uint32_t (&words)[4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      // The lower lane gives the word that belongs above, the upper lane the one that belongs below.
      const uint32_t given = upper ? words[i] : words[i + distance];
      const uint32_t taken = __shfl_xor_sync(~0u, given, distance);
      if (upper)
        words[i] = taken;
      else
        words[i + distance] = taken;
    }
  }
}

struct TileAt {
  int batch = 0;
  int token = 0;
  int rows = 0;
};

__device__ TileAt find_tile(const BackwardParams& p, int tile) {
  if (is_packed(p)) {
    const BackwardTileRows rows = p.workspace.tile_rows[tile];
    return {0, rows.token, rows.rows};
  }
  const int batch = tile / p.sequence_tiles;
  const int token = (tile - batch * p.sequence_tiles) * Traits::kQueries;
  return {batch, token, min(Traits::kQueries, p.s_q - token)};
}

// Half 0 holds columns 0-95 of nope; half 1 rope, then columns 96-127 of nope. A thread has rows g and g + 8 of its
// warp's 16 and 2 columns of every 8; quads exchange so that each thread writes 8 columns at once.
__device__ void convert_half(const BackwardParams& p, int head, int tile, int half) {
  const TileAt at = find_tile(p, tile);
  if (at.rows <= 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t index = (static_cast<int64_t>(head) * p.tiles + tile) * 2 + half;
  const auto* const from = reinterpret_cast<const float4*>(p.workspace.dq + index * Traits::kDqHalfFloats) + thread;
  constexpr int kParts = Traits::kDqHalfColumns / 32;
  float4 values[4 * kParts];
#pragma unroll
  for (int i = 0; i < 4 * kParts; ++i) values[i] = __ldcs(from + i * kThreads);
  const int row = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    uint32_t upper[4], lower[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4& x = values[4 * part + i];
      upper[i] = sm90::pack_bf16(x.x * p.scale, x.y * p.scale);
      lower[i] = sm90::pack_bf16(x.z * p.scale, x.w * p.scale);
    }
    transpose_quad(upper);
    transpose_quad(lower);
    const int column = 32 * part + thread % 4 * 8;
    const bool rope = half == 1 && column < Traits::kRope;
    const BackwardRows& to = rope ? p.dq_pe : p.dq_nope;
    const int to_column = half == 1 && !rope ? column - Traits::kRope + Traits::kDqHalfColumns : column;
    const auto store = [&](int r, const uint32_t(&words)[4]) {
      if (r < at.rows)
        *reinterpret_cast<uint4*>(to.at(at.batch, at.token + r, head) + to_column) =
            make_uint4(words[0], words[1], words[2], words[3]);
    };
    store(row, upper);
    store(row + 8, lower);
  }
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

}  // namespace

cudaError_t launch_convert_backward(const BackwardParams& params, cudaStream_t stream) {
  const int64_t sum_threads = static_cast<int64_t>(params.key_rows) * Traits::kRope / 4;
  const int sum_blocks = static_cast<int>((sum_threads + kThreads - 1) / kThreads);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(sum_blocks + params.tiles * params.heads * 2));
  config.blockDim = dim3(kThreads);
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
