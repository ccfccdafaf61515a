// The pieces of one tile of attention: packing rows, transposing, and which keys the queries of a tile see.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "ops/cpu/mla_attention_problem.h"
#include "ops/cpu/tile_gemm.h"

namespace lathe::ops::cpu {

// Rows are asked for before they are read: those of one head lie too far apart for the processor to see the pattern.
inline constexpr std::int64_t kRowsAhead = 16;

template <typename IO>
void prefetch_row(const IO* row, std::int64_t count) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(IO));
  for (std::int64_t i = 0; i < count; i += kLine) __builtin_prefetch(row + i);
}

template <typename T, typename IO>
void copy_row(const IO* from, std::int64_t count, T* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

// `from` followed by zeros up to the stride.
template <typename T, typename IO>
void pack_row(const IO* from, std::int64_t count, T* to) {
  copy_row(from, count, to);
  for (std::int64_t i = count; i < padded<T>(count); ++i) to[i] = T{0};
}

// The two parts of a query or key as one row.
template <typename T, typename IO>
void pack_row(const IO* nope, std::int64_t dn, const IO* pe, std::int64_t dr, T* to) {
  copy_row(nope, dn, to);
  copy_row(pe, dr, to + dn);
  for (std::int64_t i = dn + dr; i < padded<T>(dn + dr); ++i) to[i] = T{0};
}

template <typename T, typename IO>
void unpack_row(const T* from, std::int64_t count, T factor, IO* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<IO>(from[i] * factor);
}

// to[c][r] = from[r][c] in blocks of 4 x 4: rows and columns are rounded up to multiples of 4, so both tiles must have
// memory for that. What stands there is copied, whatever it is.
template <typename T>
void transpose(Tile<const T> from, std::int64_t rows, std::int64_t columns, Tile<T> to) {
  typedef T Four __attribute__((vector_size(kTransposeBlock * sizeof(T))));
  for (std::int64_t r = 0; r < rows; r += 4)
    for (std::int64_t c = 0; c < columns; c += 4) {
      Four row[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&row[i], from.row(r + i) + c, sizeof(Four));
      const Four a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Four b = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Four d = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Four e = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      row[0] = __builtin_shufflevector(a, d, 0, 1, 4, 5);
      row[1] = __builtin_shufflevector(a, d, 2, 3, 6, 7);
      row[2] = __builtin_shufflevector(b, e, 0, 1, 4, 5);
      row[3] = __builtin_shufflevector(b, e, 2, 3, 6, 7);
      for (int i = 0; i < 4; ++i) std::memcpy(to.row(c + i) + r, &row[i], sizeof(Four));
    }
}

template <typename T>
bool all_finite(Tile<const T> tile, std::int64_t rows, std::int64_t columns) {
  Vector<T> sum{};
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; c += kLanes<T>) sum += load(tile.row(r) + c) * T{0};
  T total = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) total += sum[lane];
  return total == T{0};
}

// Which of the tile's keys each of its queries sees: query r the first counts[r], never fewer than the query before.
class TileMask {
 public:
  // visible[r]: the number of keys of the sequence that query r sees; the tile's keys begin at `key_begin`.
  TileMask(const std::int64_t* visible, int queries, std::int64_t key_begin, int keys)
      : queries_(queries), keys_(keys) {
    for (int r = 0; r < queries; ++r)
      counts_[at(r)] = static_cast<int>(std::clamp<std::int64_t>(visible[r] - key_begin, 0, keys));
  }

  int queries() const { return queries_; }
  int keys() const { return keys_; }
  int count(int query) const { return counts_[at(query)]; }
  bool none() const { return count(queries_ - 1) == 0; }
  bool all() const { return count(0) == keys_; }

  // The limits of a tile_product in which ... are the rows, the columns and the depth: queries, keys, `depth`;
  template <typename T>
  auto query_key(std::int64_t depth) const {
    return [this, depth](int, int end) { return TileLimits{0, static_cast<int>(depth), vectors<T>(count(end - 1))}; };
  }
  // queries, `columns`, keys;
  template <typename T>
  auto over_keys(std::int64_t columns) const {
    return [this, columns](int, int end) { return TileLimits{0, count(end - 1), vectors<T>(columns)}; };
  }
  // keys, `columns`, queries.
  template <typename T>
  auto over_queries(std::int64_t columns) const {
    return [this, columns](int begin, int) { return TileLimits{first_query(begin), queries_, vectors<T>(columns)}; };
  }

 private:
  static constexpr std::size_t at(int index) { return static_cast<std::size_t>(index); }
  // The first query that sees key `key`.
  int first_query(int key) const {
    return static_cast<int>(std::upper_bound(counts_.begin(), counts_.begin() + queries_, key) - counts_.begin());
  }

  int queries_;
  int keys_;
  std::array<int, kTileQueries> counts_;
};

// A product over a masked tile adds 0 * x for keys or queries that its groups of rows see only in part. Where x is not
// finite that is no 0: then each row is a group of its own, with exact limits.
template <typename T>
int group_rows(const TileMask& mask, Tile<const T> tile, std::int64_t rows, std::int64_t columns) {
  return mask.all() || all_finite(tile, rows, columns) ? kTileMaxRows : 1;
}

}  // namespace lathe::ops::cpu
