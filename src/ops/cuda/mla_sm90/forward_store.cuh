// The end of a tile: output rows divided by their sums, and lse, from fragments to where they belong.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/cuda/mla_sm90/forward_softmax.cuh"
#include "ops/cuda/mla_sm90/forward_tiles.cuh"

namespace lathe::ops::cuda {

// words[i] of lane t of a quad -> words[t] of lane i.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      // The lower lane gives its upper word for the upper lane's lower one.
      uint32_t& low = words[i];
      uint32_t& high = words[i + distance];
      const uint32_t other = __shfl_xor_sync(~0u, upper ? low : high, distance);
      (upper ? low : high) = other;
    }
  }
}

// `row`: the first of this thread's two rows, g and g + 8, in the sequence. Each quad writes 64 bytes of a row at once;
// nobody reads them soon, so they leave the cache first.
__device__ __forceinline__ void store_rows(const ForwardParams& p, const ForwardTile& tile, int row,
                                           const float (&out)[64], const SoftmaxRows& rows) {
  const int t = static_cast<int>(threadIdx.x & 3);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sum[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    // A row that sees no key has sum 0 and output 0. NaN stays NaN.
    const float inverse = sum == 0.f ? 0.f : __fdividef(1.f, sum);
    const int sequence_row = row + 8 * r;
    const bool exists = sequence_row < tile.s_q;
    const std::int64_t token = tile.q_token + sequence_row;
    __nv_bfloat16* to = p.out + tile.batch * p.out_batch + token * p.out_token + tile.head * p.out_head + 8 * t;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (4 * part + i) + 2 * r;
        words[i] = sm90::pack_bf16(out[at] * inverse, out[at + 1] * inverse);
      }
      transpose_quad(words);
      if (exists) __stcs(reinterpret_cast<uint4*>(to + 32 * part), make_uint4(words[0], words[1], words[2], words[3]));
    }
    if (exists && t == 0)
      p.lse[tile.batch * p.lse_batch + token * p.lse_token + tile.head * p.lse_head] =
          sum == 0.f ? -INFINITY : rows.maximum[r] * p.scale + __logf(sum);
  }
}

}  // namespace lathe::ops::cuda
