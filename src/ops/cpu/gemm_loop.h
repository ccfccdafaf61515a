// A blocked matrix product on one thread for any element type: fp64, and fp32 where oneDNN is missing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/cpu/gemm.h"

namespace lathe::ops::cpu {

template <typename T>
struct GemmLoop {
  static constexpr std::int64_t kRows = 6;                                                 // of c held in registers
  static constexpr std::int64_t kColumns = 2 * 64 / static_cast<std::int64_t>(sizeof(T));  // two 512-bit registers
  static constexpr std::int64_t kDepth = 128;  // of a block of b: 32 KB for both types, the first-level cache

  static void run(const Gemm<T>& g) {
    scale(g);
    alignas(64) T b_panel[kDepth * kColumns];
    for (std::int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
      const std::int64_t depth = std::min(kDepth, g.k - k0);
      for (std::int64_t n0 = 0; n0 < g.n; n0 += kColumns) {
        const std::int64_t columns = std::min(kColumns, g.n - n0);
        pack_b(g, k0, depth, n0, columns, b_panel);
        for (std::int64_t m0 = 0; m0 < g.m; m0 += kRows)
          block(g, k0, depth, m0, std::min(kRows, g.m - m0), n0, columns, b_panel);
      }
    }
  }

 private:
  static void scale(const Gemm<T>& g) {
    if (g.beta == T{1}) return;
    for (std::int64_t i = 0; i < g.m; ++i) {
      T* row = g.c + i * g.ldc;
      for (std::int64_t j = 0; j < g.n; ++j) row[j] = g.beta == T{0} ? T{0} : g.beta * row[j];
    }
  }

  // b_panel[k][j], zero beyond `columns`.
  static void pack_b(const Gemm<T>& g, std::int64_t k0, std::int64_t depth, std::int64_t n0, std::int64_t columns,
                     T* b_panel) {
    for (std::int64_t k = 0; k < depth; ++k)
      for (std::int64_t j = 0; j < kColumns; ++j) {
        const std::int64_t at = g.transpose_b ? (n0 + j) * g.ldb + k0 + k : (k0 + k) * g.ldb + n0 + j;
        b_panel[k * kColumns + j] = j < columns ? g.b[at] : T{0};
      }
  }

  static void block(const Gemm<T>& g, std::int64_t k0, std::int64_t depth, std::int64_t m0, std::int64_t rows,
                    std::int64_t n0, std::int64_t columns, const T* b_panel) {
    alignas(64) T a_panel[kDepth * kRows];  // a_panel[k][i], zero beyond `rows`
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t k = 0; k < depth; ++k) {
        const std::int64_t at = g.transpose_a ? (k0 + k) * g.lda + m0 + i : (m0 + i) * g.lda + k0 + k;
        a_panel[k * kRows + i] = i < rows ? g.a[at] : T{0};
      }
    alignas(64) T sums[kRows][kColumns] = {};
    for (std::int64_t k = 0; k < depth; ++k)
      for (std::int64_t i = 0; i < kRows; ++i) {
#pragma omp simd
        for (std::int64_t j = 0; j < kColumns; ++j) sums[i][j] += a_panel[k * kRows + i] * b_panel[k * kColumns + j];
      }
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) g.c[(m0 + i) * g.ldc + n0 + j] += g.alpha * sums[i][j];
  }
};

}  // namespace lathe::ops::cpu
