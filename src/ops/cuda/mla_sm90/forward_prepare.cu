// What the forward needs around its main kernel: the list of tiles of packed sequences, and the answer where there are
// no keys at all.
#include <cmath>

#include "ops/cuda/mla_sm90/forward_launch.h"
#include "ops/cuda/mla_sm90/launch.h"

namespace lathe::ops::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 1024;

// The row tile `tile` of a sequence sees this many keys.
__device__ int keys_of_tile(int tile, int s_q, int s_k, bool causal) {
  const int last_row = min((tile + 1) * ForwardTraits::kRows, s_q) - 1;
  return causal ? max(0, min(last_row + 1 + s_k - s_q, s_k)) : s_k;
}

// A counting sort by the number of keys, in one block; a warp takes a sequence. Tiles of one bin come in any order,
// which no result depends on. `keys_shift`: the largest number of keys falls into the last bin.
__global__ void __launch_bounds__(kThreads)
    list_tiles(PackedSequences sequences, int keys_shift, PackedTile* tiles, int* tile_count) {
  __shared__ int bins[kBins];  // counts, then where the bin's next tile goes
  __shared__ int warp_sums[kThreads / 32];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  bins[threadIdx.x] = 0;
  __syncthreads();
  const auto for_each_tile = [&](auto&& visit) {
    for (int i = warp; i < sequences.count; i += kThreads / 32) {
      const int s_q = sequences.cu_seqlens_q[i + 1] - sequences.cu_seqlens_q[i];
      const int s_k = sequences.cu_seqlens_k[i + 1] - sequences.cu_seqlens_k[i];
      for (int tile = lane; tile * ForwardTraits::kRows < s_q; tile += 32) {
        const int keys = keys_of_tile(tile, s_q, s_k, sequences.causal);
        visit(i, tile, kBins - 1 - min(keys >> keys_shift, kBins - 1));  // the longest in the first bin
      }
    }
  };
  for_each_tile([&](int, int, int bin) { atomicAdd(&bins[bin], 1); });
  __syncthreads();
  // Exclusive sums over the bins.
  const int count = bins[threadIdx.x];
  int sum = count;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int before = 0;
  for (int w = 0; w < warp; ++w) before += warp_sums[w];
  bins[threadIdx.x] = before + sum - count;
  if (threadIdx.x == kThreads - 1) *tile_count = before + sum;
  __syncthreads();
  for_each_tile([&](int sequence, int tile, int bin) {
    tiles[atomicAdd(&bins[bin], 1)] = {sequence, tile * ForwardTraits::kRows};
  });
}
static_assert(kThreads == kBins);

// A warp a row of one head.
__global__ void __launch_bounds__(kThreads) fill_empty(ForwardParams p, int batches, int rows) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const std::int64_t of_batch = static_cast<std::int64_t>(rows) * p.heads;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (index >= batches * of_batch) return;
  const int batch = static_cast<int>(index / of_batch);
  const int row = static_cast<int>(index % of_batch / p.heads);
  const int head = static_cast<int>(index % p.heads);
  __nv_bfloat16* to = p.out + batch * p.out_batch + row * p.out_token + head * p.out_head;
  if (lane < ForwardTraits::kValue / 8) reinterpret_cast<uint4*>(to)[lane] = make_uint4(0, 0, 0, 0);
  if (lane == 0) p.lse[batch * p.lse_batch + row * p.lse_token + head * p.lse_head] = -INFINITY;
}

}  // namespace

cudaError_t launch_list_tiles(const PackedSequences& sequences, PackedTile* tiles, int* tile_count,
                              cudaStream_t stream) {
  int shift = 0;
  while ((sequences.total_k >> shift) >= kBins) ++shift;
  return launch_plain(list_tiles, 1, kThreads, stream, sequences, shift, tiles, tile_count);
}

cudaError_t launch_fill_empty(const ForwardParams& params, int batches, int rows, cudaStream_t stream) {
  const std::int64_t warps = static_cast<std::int64_t>(batches) * rows * params.heads;
  return launch_plain(fill_empty, (warps + kThreads / 32 - 1) / (kThreads / 32), kThreads, stream, params, batches,
                      rows);
}

}  // namespace lathe::ops::cuda
