// Products of small tiles that lie in the cache: C = scale A B, or C += A B. The rows of C are worked on in groups that
// fit the registers, and each group may have its own part of the depth and of the columns, so that a triangle of a
// masked tile costs about half of it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {

// Each row of B and C begins at a multiple of `stride` and may be read and written up to a whole number of vectors.
template <typename T>
struct Tile {
  T* data = nullptr;
  std::int64_t stride = 0;

  T* row(std::int64_t index) const { return data + index * stride; }
};

enum class TileOperand { rows, columns };  // A[m][k] is a[m * stride + k], or a[k * stride + m]
enum class TileResult { set, add };

// What a group of rows of C needs: a part of the depth, and the first `vectors` vectors of each row.
struct TileLimits {
  int depth_begin = 0;
  int depth_end = 0;
  int vectors = 0;
};

// Three quarters of the registers hold C, the others a row of B and an element of A.
inline constexpr int kTileVectors = kVectorRegisters == 32 ? 4 : 2;
inline constexpr int kTileMaxRows = 8;
constexpr int tile_rows(int vectors) { return std::min(kTileMaxRows, kVectorRegisters * 3 / 4 / vectors); }

template <typename T>
using TileKernel = void (*)(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride, T* c,
                            std::int64_t c_stride, int depth, T scale);

template <typename T, TileOperand kOperand, TileResult kResult, int kRows, int kVectors>
void tile_kernel(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride, T* c, std::int64_t c_stride,
                 int depth, T scale) {
  constexpr int kWidth = kLanes<T>;
  // Unrolled early, so that the sums live in registers from the first store to the last.
  Vector<T> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kResult == TileResult::add)
        sum[i][v] = load(c + i * c_stride + v * kWidth);
      else
        sum[i][v] = Vector<T>{};
    }
  for (int k = 0; k < depth; ++k) {
    Vector<T> b_row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) b_row[v] = load(b + v * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const T element = kOperand == TileOperand::rows ? a[i * a_stride] : a[i];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] += element * b_row[v];
    }
    a += kOperand == TileOperand::rows ? 1 : a_stride;
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kResult == TileResult::set) sum[i][v] *= scale;
      store<T>(c + i * c_stride + v * kWidth, sum[i][v]);
    }
}

// kTileKernels<...>[rows - 1][vectors - 1]; null where the registers do not hold so many.
template <typename T, TileOperand kOperand, TileResult kResult>
inline constexpr auto kTileKernels = [] {
  std::array<std::array<TileKernel<T>, kTileVectors>, kTileMaxRows> kernels{};
  const auto fill = [&]<int kVectors, int... kRow>(std::integer_sequence<int, kRow...>) {
    ((kernels[kRow][kVectors - 1] = tile_kernel<T, kOperand, kResult, kRow + 1, kVectors>), ...);
  };
  const auto fill_all = [&]<int... kVector>(std::integer_sequence<int, kVector...>) {
    (fill.template operator()<kVector + 1>(std::make_integer_sequence<int, tile_rows(kVector + 1)>{}), ...);
  };
  fill_all(std::make_integer_sequence<int, kTileVectors>{});
  return kernels;
}();

// The widest panel of columns such that the last ones are not much narrower: 6 vectors are 3 + 3, not 4 + 2.
constexpr int tile_panel(int vectors_left) {
  const int panels = (vectors_left + kTileVectors - 1) / kTileVectors;
  return (vectors_left + panels - 1) / panels;
}

// `limits(row_begin, row_end)` gives the part of the work that rows [row_begin, row_end) of C need; groups have at most
// `max_group` rows. Elements of A and B outside the limits are not read.
template <TileOperand kOperand, TileResult kResult, typename T, typename Limits>
void tile_product(Tile<const T> a, Tile<const T> b, Tile<T> c, int rows, int vectors, int max_group, T scale,
                  Limits&& limits) {
  const auto& kernels = kTileKernels<T, kOperand, kResult>;
  for (int panel_begin = 0, panel = 0; panel_begin < vectors; panel_begin += panel) {
    panel = tile_panel(vectors - panel_begin);
    const int group = std::min(tile_rows(panel), max_group);
    for (int begin = 0; begin < rows; begin += group) {
      const int end = std::min(rows, begin + group);
      const TileLimits limit = limits(begin, end);
      const int width = std::min(panel, limit.vectors - panel_begin);
      if (width <= 0) continue;
      const T* a_begin =
          kOperand == TileOperand::rows ? a.row(begin) + limit.depth_begin : a.row(limit.depth_begin) + begin;
      const std::int64_t column = std::int64_t{panel_begin} * kLanes<T>;
      const auto kernel = kernels[static_cast<std::size_t>(end - begin - 1)][static_cast<std::size_t>(width - 1)];
      kernel(a_begin, a.stride, b.row(limit.depth_begin) + column, b.stride, c.row(begin) + column, c.stride,
             limit.depth_end - limit.depth_begin, scale);
    }
  }
}

}  // namespace lathe::ops::cpu
