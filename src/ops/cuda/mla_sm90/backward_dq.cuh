// dQ from fp32 fragments to bf16 rows.
#pragma once

#include "ops/cuda/mla_sm90/backward_jobs.cuh"
#include "sm90/control.cuh"
#include "sm90/quads.cuh"

namespace lathe::ops::cuda {

// Half a query tile of dQ, and where its rows are.
struct BackwardDqHalf {
  int head = 0, tile = 0, half = 0;
  int batch = 0, token = 0, rows = 0;

  __device__ __forceinline__ BackwardDqHalf(const BackwardParams& p, int head_, int tile_, int half_)
      : head(head_), tile(tile_), half(half_) {
    if (is_packed(p)) {
      const BackwardTileRows found = p.workspace.tile_rows[tile];
      token = found.token;
      rows = found.rows;
    } else {
      batch = tile / p.sequence_tiles;
      token = (tile - batch * p.sequence_tiles) * BackwardTraits::kQueries;
      rows = min(BackwardTraits::kQueries, p.s_q - token);
    }
  }
  __device__ __forceinline__ const float* in(const BackwardParams& p) const {
    const int64_t index = (static_cast<int64_t>(head) * p.tiles + tile) * 2 + half;
    return p.workspace.dq + index * BackwardTraits::kDqHalfFloats;
  }
};

constexpr int kDqFragments = BackwardTraits::kDqHalfColumns / 8;  // float4 of a thread, [fragment][128 threads]

__device__ __forceinline__ void load_dq(const BackwardParams& p, const BackwardDqHalf& at, int thread,
                                        float4 (&values)[kDqFragments]) {
  const auto* const from = reinterpret_cast<const float4*>(at.in(p)) + thread;
#pragma unroll
  for (int i = 0; i < kDqFragments; ++i) values[i] = __ldcs(from + 128 * i);
}

// Half 0 holds columns 0-95 of nope; half 1 rope, then columns 96-127 of nope. A thread (of the 128 that wrote the
// half) has rows g and g + 8 of its warp's 16 and 2 columns of every 8; quads exchange so that each thread writes 8
// columns at once.
__device__ __forceinline__ void store_dq(const BackwardParams& p, const BackwardDqHalf& at, int thread,
                                         const float4 (&values)[kDqFragments]) {
  using Traits = BackwardTraits;
  const int row = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int part = 0; part < kDqFragments / 4; ++part) {
    uint32_t words[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4& x = values[4 * part + i];
      words[0][i] = sm90::pack_bf16(x.x * p.scale, x.y * p.scale);
      words[1][i] = sm90::pack_bf16(x.z * p.scale, x.w * p.scale);
    }
    sm90::transpose_quads(words);
    const int column = 32 * part + thread % 4 * 8;
    const bool rope = at.half == 1 && column < Traits::kRope;
    const BackwardRows& to = rope ? p.dq_pe : p.dq_nope;
    const int to_column = at.half == 1 && !rope ? column - Traits::kRope + Traits::kDqHalfColumns : column;
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (row + 8 * r < at.rows)
        *reinterpret_cast<uint4*>(to.at(at.batch, at.token + row + 8 * r, at.head) + to_column) =
            make_uint4(words[r][0], words[r][1], words[r][2], words[r][3]);
  }
}

}  // namespace lathe::ops::cuda
