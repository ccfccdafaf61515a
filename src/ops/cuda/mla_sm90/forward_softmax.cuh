// Online softmax on wgmma fragments (Milakov and Gimelshein, arXiv:1805.02867). Of a 64-row product a thread holds the
// rows g and g + 8 of its warp's 16 (g = lane / 4): scores[4j], [4j + 1] are the columns 8j + 2 (lane % 4) and the next
// of row g, scores[4j + 2], [4j + 3] the same of row g + 8.
#pragma once

#include <cmath>
#include <cstdint>

#include "sm90/control.cuh"

namespace lathe::ops::cuda {

// The two rows of a thread. Sums are of this thread's columns until the end of the tile.
struct SoftmaxRows {
  float maximum[2];  // of the raw scores
  float sum[2];
  float rescale[2];  // what the output so far is to be multiplied with
};

// The last visible column of the thread's rows, counted in this block.
struct ColumnLimits {
  int row[2];
};

template <int kColumns>
__device__ __forceinline__ void mask_scores(float (&scores)[64], const ColumnLimits& limits) {
  const int first = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
    const int column = 8 * j + first;
    if (column > limits.row[0]) scores[4 * j] = -INFINITY;
    if (column + 1 > limits.row[0]) scores[4 * j + 1] = -INFINITY;
    if (column > limits.row[1]) scores[4 * j + 2] = -INFINITY;
    if (column + 1 > limits.row[1]) scores[4 * j + 3] = -INFINITY;
  }
}

// The rows' maxima over the first kColumns columns too, and what the output so far shrinks by. kFirst: the tile's first
// block.
template <bool kFirst, int kColumns>
__device__ __forceinline__ void raise_maxima(const float (&scores)[64], SoftmaxRows& rows, float scale_log2e) {
  float maximum[2][2] = {{scores[0], scores[1]}, {scores[2], scores[3]}};
#pragma unroll
  for (int j = 1; j < kColumns / 8; ++j)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      maximum[r][0] = fmaxf(maximum[r][0], scores[4 * j + 2 * r]);
      maximum[r][1] = fmaxf(maximum[r][1], scores[4 * j + 2 * r + 1]);
    }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = fmaxf(maximum[r][0], maximum[r][1]);
    if constexpr (!kFirst) top = fmaxf(top, rows.maximum[r]);
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    rows.rescale[r] = kFirst ? 1.f : sm90::exp2_approximate((rows.maximum[r] - top) * scale_log2e);
    rows.maximum[r] = top;
  }
}

// scores -> exp(scale * (score - maximum)), and their sums. Only in a tile's first block may a row have no visible key
// at all (keys ascend, so a row that sees any key sees the first): its maximum is -inf, its exponentials are 0.
template <bool kFirst, int kColumns>
__device__ __forceinline__ void exponentiate(float (&scores)[64], SoftmaxRows& rows, float scale_log2e) {
  constexpr int kQuads = kColumns / 8;
  float scaled[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    scaled[r] = rows.maximum[r] * scale_log2e;
    if constexpr (kFirst) scaled[r] = rows.maximum[r] == -INFINITY ? 0.f : scaled[r];
  }
#pragma unroll
  for (int j = 0; j < 2 * kQuads; ++j)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      scores[2 * j + i] = sm90::exp2_approximate(fmaf(scores[2 * j + i], scale_log2e, -scaled[j & 1]));
  float sum[2][2] = {{scores[0], scores[1]}, {scores[2], scores[3]}};
#pragma unroll
  for (int j = 1; j < kQuads; ++j)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r][0] += scores[4 * j + 2 * r];
      sum[r][1] += scores[4 * j + 2 * r + 1];
    }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = sum[r][0] + sum[r][1];
    rows.sum[r] = kFirst ? total : fmaf(rows.sum[r], rows.rescale[r], total);
  }
}

// An accumulator fragment rounded to bf16 is, as it stands, the A fragment of the next product.
__device__ __forceinline__ void pack_probabilities(uint32_t (&packed)[32], const float (&scores)[64]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) packed[i] = sm90::pack_bf16(scores[2 * i], scores[2 * i + 1]);
}

// A warp in which no maximum moved leaves the output as it is.
__device__ __forceinline__ void rescale_output(float (&out)[64], const SoftmaxRows& rows) {
  if (!__any_sync(~0u, rows.rescale[0] != 1.f || rows.rescale[1] != 1.f)) return;
#pragma unroll
  for (int j = 0; j < 16; ++j)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      out[4 * j + 2 * r] *= rows.rescale[r];
      out[4 * j + 2 * r + 1] *= rows.rescale[r];
    }
}

}  // namespace lathe::ops::cuda
