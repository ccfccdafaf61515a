// Matrix products of the CPU ops, row-major: c = alpha * op(a) op(b) + beta * c.
#pragma once

#include <cstdint>
#include <string_view>

namespace lathe::ops::cpu {

template <typename T>
struct Gemm {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const T* a = nullptr;  // [m, k], or [k, m] if transposed
  std::int64_t lda = 0;  // elements from one row to the next
  bool transpose_a = false;
  const T* b = nullptr;  // [k, n], or [n, k] if transposed
  std::int64_t ldb = 0;
  bool transpose_b = false;
  T* c = nullptr;  // [m, n]
  std::int64_t ldc = 0;
  T alpha = 1;
  T beta = 0;  // 0: c is not read, so that NaN in it vanish; k = 0 leaves beta * c
};

// Outside a parallel region on all threads, inside one on the calling thread. The bits of the result are the same
// either way and for any number of threads: the product is cut into tiles by its shape alone, and a tile is computed by
// one thread.
void gemm(const Gemm<float>& product);
void gemm(const Gemm<double>& product);

// The tiles that gemm() cuts a product into, for callers that share out several products at once.
template <typename T>
std::int64_t gemm_num_tiles(const Gemm<T>& product);
template <typename T>
Gemm<T> gemm_tile(const Gemm<T>& product, std::int64_t index);

// One product on the calling thread, uncut.
void gemm_on_one_thread(const Gemm<float>& product);
void gemm_on_one_thread(const Gemm<double>& product);

// What computes fp32 products: "oneDNN 2.6.3" or "plain loop".
std::string_view gemm_name();

}  // namespace lathe::ops::cpu
