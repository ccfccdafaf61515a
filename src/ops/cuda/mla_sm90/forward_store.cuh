// The end of a tile: output rows divided by their sums, and lse, from fragments to where they belong.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/cuda/mla_sm90/forward_softmax.cuh"
#include "ops/cuda/mla_sm90/forward_tiles.cuh"
#include "sm90/quads.cuh"

namespace lathe::ops::cuda {

// `row`: the first of this thread's two rows, g and g + 8, in the sequence. Each quad writes 64 bytes of a row at once;
// nobody reads them soon, so they leave the cache first.
__device__ __forceinline__ void store_rows(const ForwardParams& p, const ForwardTile& tile, int row,
                                           const float (&out)[64], const SoftmaxRows& rows) {
  const int t = static_cast<int>(threadIdx.x & 3);
  float sum[2], inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) sum[r] = rows.sum[r] + __shfl_xor_sync(~0u, rows.sum[r], 1);
#pragma unroll
  for (int r = 0; r < 2; ++r) sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
  __nv_bfloat16* to[2];
  bool exists[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // A row that sees no key has sum 0 and output 0. NaN stays NaN.
    inverse[r] = sum[r] == 0.f ? 0.f : __fdividef(1.f, sum[r]);
    exists[r] = row + 8 * r < tile.s_q;
    const std::int64_t token = tile.q_token + row + 8 * r;
    to[r] = p.out + tile.batch * p.out_batch + token * p.out_token + tile.head * p.out_head + 8 * t;
    if (exists[r] && t == 0)
      p.lse[tile.batch * p.lse_batch + token * p.lse_token + tile.head * p.lse_head] =
          sum[r] == 0.f ? -INFINITY : rows.maximum[r] * p.scale + __logf(sum[r]);
  }
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    uint32_t words[2][4];
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (4 * part + i) + 2 * r;
        words[r][i] = sm90::pack_bf16(out[at] * inverse[r], out[at + 1] * inverse[r]);
      }
    sm90::transpose_quads(words);
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (exists[r])
        __stcs(reinterpret_cast<uint4*>(to[r] + 32 * part),
               make_uint4(words[r][0], words[r][1], words[r][2], words[r][3]));
  }
}

}  // namespace lathe::ops::cuda
