// Transposed copies of weights, so that x W^T becomes a product of rows by rows: 5% faster in oneDNN, more for flat
// tiles.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lathe::ops::cpu {

// From so many rows of x on the copy is worth its time.
inline constexpr std::int64_t kRowsWorthTransposing = 32;

// Where a copy with `columns` numbers a row puts its rows: never a multiple of 2 KB apart, which would lay whole
// columns into a few sets of the cache.
inline std::int64_t padded_stride(std::int64_t columns) { return columns % 512 == 0 ? columns + 16 : columns; }

// to[j][i] = from[i][j] for i < rows, j < columns; in blocks of 16 x 16, a cache line each way.
template <typename T>
void transpose(const T* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, T* to,
               std::int64_t to_stride) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t i = 0; i < rows; i += kBlock)
    for (std::int64_t j = 0; j < columns; j += kBlock) {
      const std::int64_t rows_end = std::min(rows, i + kBlock);
      const std::int64_t columns_end = std::min(columns, j + kBlock);
      for (std::int64_t jj = j; jj < columns_end; ++jj)
        for (std::int64_t ii = i; ii < rows_end; ++ii) to[jj * to_stride + ii] = from[ii * from_stride + jj];
    }
}

}  // namespace lathe::ops::cpu
