// Matrix products by cuBLASLt, row-major: c = op(a) op(b), or c += op(a) op(b). Sums in fp32; fp32 matrices are not
// rounded to anything shorter.
#pragma once

#include <cstdint>

#include "ops/context.h"
#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct Matmul {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const void* a = nullptr;  // [m, k], or [k, m] if transposed
  std::int64_t lda = 0;     // elements from one row to the next
  bool transpose_a = false;
  const void* b = nullptr;  // [k, n], or [n, k] if transposed
  std::int64_t ldb = 0;
  bool transpose_b = false;
  void* c = nullptr;  // [m, n]
  std::int64_t ldc = 0;
  Element element = Element::f32;  // of a and b
  Element result = Element::f32;   // of c; bf16 only with bf16 factors
  bool accumulate = false;
};

// The algorithm is chosen at the first call with these sizes, strides, types and alignments, and kept: equal calls give
// equal bits.
void matmul(const Context& context, const Matmul& product);

// The stride of the rows as products want it: at least the width, also where there is one row or none.
std::int64_t leading_dimension(const TensorView& matrix);

}  // namespace lathe::ops::cuda
