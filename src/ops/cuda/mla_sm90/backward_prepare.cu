// What the backward's main kernel finds ready: lse and delta in padded tiles, zeros to add to, and for packed sequences
// the list of jobs.
#include <cmath>

#include "ops/cuda/mla_sm90/backward_jobs.cuh"
#include "ops/cuda/mla_sm90/backward_launch.h"
#include "ops/cuda/mla_sm90/launch.h"
#include "sm90/control.cuh"

namespace lathe::ops::cuda {
namespace {

using Traits = BackwardTraits;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Packed: the sequence whose pieces have `piece` among their numbers. All lanes of a warp take part; each round looks
// at 32 sequences.
__device__ int sequence_of_piece(const int* cu_seqlens, int sequences, int size, int piece) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int first = 0;
  int count = sequences;  // it is in [first, first + count)
  while (count > 1) {
    const int step = (count + 31) / 32;
    const bool below = lane * step < count && first_piece(cu_seqlens, first + lane * step, size) <= piece;
    const int last = 31 - __clz(static_cast<int>(__ballot_sync(~0u, below)));  // lane 0 always says yes
    first += last * step;
    count = min(step, count - last * step);
  }
  return first;
}

// A query tile's rows: where they are, and whether any of them sees a key.
struct Tile {
  int batch = 0;
  int token = 0;
  int rows = 0;
  bool sees_keys = false;
};

__device__ Tile tile_of_sequence(const BackwardParams& p, int tile, int s_q, int s_k) {
  Tile found;
  found.token = tile * Traits::kQueries;
  found.rows = max(0, min(Traits::kQueries, s_q - found.token));
  found.sees_keys = s_k > 0 && (!p.causal || found.token + found.rows - 1 + s_k - s_q >= 0);
  return found;
}

__device__ Tile find_tile(const BackwardParams& p, int tile) {
  if (!is_packed(p)) {
    const int batch = tile / p.sequence_tiles;
    Tile found = tile_of_sequence(p, tile - batch * p.sequence_tiles, p.s_q, p.s_k);
    found.batch = batch;
    return found;
  }
  const int i = sequence_of_piece(p.cu_seqlens_q, p.sequences, Traits::kQueries, tile);
  const int begin = p.cu_seqlens_q[i];
  Tile found = tile_of_sequence(p, tile - first_piece(p.cu_seqlens_q, i, Traits::kQueries),
                                p.cu_seqlens_q[i + 1] - begin, p.cu_seqlens_k[i + 1] - p.cu_seqlens_k[i]);
  found.token += begin;
  return found;
}

__device__ float dot(uint4 a, uint4 b) {
  const auto pair = [](uint32_t x, uint32_t y) {
    return __uint_as_float(x << 16) * __uint_as_float(y << 16) +
           __uint_as_float(x & 0xffff0000u) * __uint_as_float(y & 0xffff0000u);
  };
  return (pair(a.x, b.x) + pair(a.y, b.y)) + (pair(a.z, b.z) + pair(a.w, b.w));
}

// One query tile of one head: delta = sum(dO * O) - dlse, lse for exp2, and what dQ needs.
__device__ void prepare_tile(const BackwardParams& p, int tile, int head) {
  constexpr int kRowThreads = Traits::kValue / 8;  // of 16 bytes each
  constexpr int kRowsAtOnce = kThreads / kRowThreads;
  constexpr int kPasses = Traits::kQueries / kRowsAtOnce;
  __shared__ float deltas[Traits::kQueries];
  const int thread = static_cast<int>(threadIdx.x);
  const Tile at = find_tile(p, tile);
  if (is_packed(p) && head == 0 && thread == 0) p.workspace.tile_rows[tile] = {at.token, at.rows};
  if (at.rows == 0) return;

  uint4 out[kPasses], dout[kPasses];
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = pass * kRowsAtOnce + thread / kRowThreads;
    out[pass] = dout[pass] = make_uint4(0, 0, 0, 0);
    if (row >= at.rows) continue;
    const int chunk = thread % kRowThreads;
    out[pass] = reinterpret_cast<const uint4*>(p.out.at(at.batch, at.token + row, head))[chunk];
    dout[pass] = reinterpret_cast<const uint4*>(p.dout.at(at.batch, at.token + row, head))[chunk];
  }
  float lse = -INFINITY;
  float dlse = 0;
  if (thread < at.rows) {
    lse = p.lse.at(at.batch, at.token + thread, head);
    if (p.dlse.data != nullptr) dlse = p.dlse.at(at.batch, at.token + thread, head);
  }

  const int64_t index = static_cast<int64_t>(head) * p.tiles + tile;
  const bool in_parts = p.schedule.in_parts();
  if (!at.sees_keys || in_parts) {  // else the first block that adds stores
    auto* const dq = reinterpret_cast<float4*>(p.workspace.dq + index * 2 * Traits::kDqHalfFloats);
#pragma unroll
    for (int i = 0; i < 2 * Traits::kDqHalfFloats / 4 / kThreads; ++i)
      dq[thread + i * kThreads] = make_float4(0, 0, 0, 0);
  }
  if (thread < 2) p.workspace.semaphores[2 * index + thread] = in_parts ? 1 : 0;

#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    float sum = dot(out[pass], dout[pass]);
#pragma unroll
    for (int distance = kRowThreads / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (thread % kRowThreads == 0) deltas[pass * kRowsAtOnce + thread / kRowThreads] = sum;
  }
  __syncthreads();
  if (thread >= Traits::kQueries) return;
  // exp2(x - inf) = 0: rows that do not exist or see no key have no part in anything.
  constexpr float kLog2E = 1.4426950408889634f;
  const bool none = lse == -INFINITY;
  float* const stats = p.workspace.stats + index * Traits::kStatsFloats;
  stats[thread] = none ? INFINITY : lse * kLog2E;
  stats[Traits::kQueries + thread] = none ? 0.f : deltas[thread] - dlse;
}

// Packed: how many key blocks of sequence i are in runs whose first block has more than `tiles` query tiles. Along a
// sequence the runs' tiles do not grow.
__device__ int blocks_of_longer_runs(const BackwardParams& p, int i, int tiles) {
  const int s_q = p.cu_seqlens_q[i + 1] - p.cu_seqlens_q[i];
  const int s_k = p.cu_seqlens_k[i + 1] - p.cu_seqlens_k[i];
  const int blocks = key_blocks_of(s_k);
  const int first_tiles = query_tiles_of(s_q) - tiles;  // a longer run begins at one of the first so many tiles
  if (first_tiles <= 0) return 0;
  if (!p.causal) return blocks;
  const int first_keys = first_tiles * Traits::kQueries + s_k - s_q;  // and with one of the first so many keys
  const int run_keys = p.schedule.run_blocks * Traits::kKeys;
  return first_keys <= 0 ? 0 : min((first_keys + run_keys - 1) / run_keys * p.schedule.run_blocks, blocks);
}

// Packed: a warp puts one run of key blocks into the list: behind all blocks of longer runs, and of runs as long that
// come before it. The sum over the sequences makes the list's order a function of the lengths alone, and it needs no
// counter that blocks would wait for.
__device__ void list_run(const BackwardParams& p, int run) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int run_blocks = p.schedule.run_blocks;
  const int run_keys = run_blocks * Traits::kKeys;
  const int i = sequence_of_piece(p.cu_seqlens_k, p.sequences, run_keys, run);
  const int q_begin = p.cu_seqlens_q[i], k_begin = p.cu_seqlens_k[i];
  const int s_q = p.cu_seqlens_q[i + 1] - q_begin;
  const int s_k = p.cu_seqlens_k[i + 1] - k_begin;
  const int first = (run - first_piece(p.cu_seqlens_k, i, run_keys)) * run_blocks;
  const int end = min(first + run_blocks, key_blocks_of(s_k));
  if (first >= end) return;  // a number that no run has
  const int tiles = end_tile(s_q) - first_tile(job_of_block(first, s_q, s_k, p.causal, run_blocks).diagonal);
  int before = 0;
  for (int k = lane; k < p.sequences; k += 32)
    if (k != i) before += blocks_of_longer_runs(p, k, k < i ? tiles - 1 : tiles);
  before = static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(before)));
  for (int block = first + lane; block < end; block += 32) {
    BackwardJob job = job_of_block(block, s_q, s_k, p.causal, run_blocks);
    job.query_token = q_begin;
    job.key_token += k_begin;
    job.key_row = job.key_token;
    job.tile = first_piece(p.cu_seqlens_q, i, Traits::kQueries);
    job.block = before + block;
    p.workspace.jobs[job.block] = job;
  }
}

__device__ void count_jobs(const BackwardParams& p) {
  int blocks = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.sequences; i += 32)
    blocks += key_blocks_of(p.cu_seqlens_k[i + 1] - p.cu_seqlens_k[i]);
  blocks = static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(blocks)));
  if (threadIdx.x == 0) *p.workspace.job_count = blocks;
}

// What all heads add to.
__device__ void zero_dk_pe(const BackwardParams& p) {
  const int count = p.key_rows * (Traits::kRope / 4);
  auto* const to = reinterpret_cast<float4*>(p.workspace.dk_pe);
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < count;
       i += static_cast<int>(gridDim.x) * kThreads)
    to[i] = make_float4(0, 0, 0, 0);
}

// Blocks [0, list_blocks) make the list of jobs, a warp a run; then each block has a query tile of a head, heads
// innermost as in memory.
__global__ void __launch_bounds__(kThreads)
    prepare_backward(const __grid_constant__ BackwardParams p, int list_blocks, int runs) {
  sm90::let_next_kernel_begin();
  const int block = static_cast<int>(blockIdx.x);
  if (block == 0 && threadIdx.x == 0) *p.workspace.next_job = p.blocks;
  if (p.converting_blocks > 0 && block == 0) {
    if (threadIdx.x == 0) *p.workspace.next_half = 0;
    for (int i = static_cast<int>(threadIdx.x); i < p.schedule.groups; i += kThreads)
      p.workspace.groups_done[i * kGroupDoneStride] = 0;
  }
  if (p.schedule.in_parts() && block == 0)
    for (int i = static_cast<int>(threadIdx.x); i < Traits::kConsumers * p.blocks; i += kThreads)
      p.workspace.parts_done[i] = 0;
  if (!p.deterministic) zero_dk_pe(p);
  if (block < list_blocks) {
    if (block == 0) {
      for (int i = static_cast<int>(threadIdx.x); i < Traits::kKeyPanel / 16; i += kThreads)
        p.workspace.zeros[i] = make_uint4(0, 0, 0, 0);
      if (threadIdx.x < 32) count_jobs(p);
    }
    const int run = block * kWarps + static_cast<int>(threadIdx.x / 32);
    if (run < runs) list_run(p, run);
    return;
  }
  const int tile = (block - list_blocks) / p.heads;
  prepare_tile(p, tile, block - list_blocks - tile * p.heads);
}

}  // namespace

cudaError_t launch_prepare_backward(const BackwardParams& params, cudaStream_t stream) {
  const bool packed = params.cu_seqlens_q != nullptr;
  const int run_keys = params.schedule.run_blocks * Traits::kKeys;
  const int runs = packed ? params.s_k / run_keys + params.sequences : 0;
  const int list_blocks = (runs + kWarps - 1) / kWarps;
  return launch_plain(prepare_backward, list_blocks + std::int64_t{params.tiles} * params.heads, kThreads, stream,
                      params, list_blocks, runs);
}

}  // namespace lathe::ops::cuda
