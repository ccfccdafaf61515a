#include "ops/linear.h"

#include <algorithm>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm_batch.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/transpose.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 128;
constexpr std::int64_t kColumnsPerChunk = 64;

// out = bias, or out += bias.
template <typename T>
void add_bias(const LinearForward& op) {
  const std::int64_t width = op.out.shape[1];
  const T* bias = op.bias.as<T>();
  const Rows<T> out(op.out);
  for_chunks(op.out.shape[0], kRowsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      T* to = out[t];
      if (!op.accumulate) {
        std::copy_n(bias, width, to);
        continue;
      }
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) to[j] += bias[j];
    }
  });
}

template <typename T>
void forward(const Context& context, const LinearForward& op) {
  if (op.bias) add_bias<T>(op);
  Gemm<T> product{
      .m = op.x.shape[0],
      .n = op.weight.shape[0],
      .k = op.x.shape[1],
      .a = op.x.as<T>(),
      .lda = leading_dimension(op.x),
      .b = op.weight.as<T>(),
      .ldb = leading_dimension(op.weight),
      .transpose_b = true,
      .c = op.out.as<T>(),
      .ldc = leading_dimension(op.out),
      .beta = op.bias || op.accumulate ? T{1} : T{0},
  };
  const ArenaScope scope(*context.scratch);
  if (product.m >= kRowsWorthTransposing) {
    const std::int64_t stride = padded_stride(product.n);
    const TensorView copy = context.scratch->take(op.x.dtype, {product.k, stride});
    T* transposed = copy.as<T>();
    for_chunks(product.k, kColumnsPerChunk, [&](std::int64_t begin, std::int64_t end) {
      transpose(product.b + begin, product.ldb, product.n, end - begin, transposed + begin * stride, stride);
    });
    product.b = transposed;
    product.ldb = stride;
    product.transpose_b = false;
  }
  gemm(product);
}

template <typename T>
Gemm<T> input_gradient(const LinearBackward& op) {
  return {
      .m = op.dout.shape[0],
      .n = op.weight.shape[1],
      .k = op.dout.shape[1],
      .a = op.dout.as<T>(),
      .lda = leading_dimension(op.dout),
      .b = op.weight.as<T>(),
      .ldb = leading_dimension(op.weight),
      .c = op.dx.as<T>(),
      .ldc = leading_dimension(op.dx),
      .beta = op.accumulate_dx ? T{1} : T{0},
  };
}

template <typename T>
Gemm<T> weight_gradient(const LinearBackward& op) {
  return {
      .m = op.dout.shape[1],
      .n = op.x.shape[1],
      .k = op.dout.shape[0],
      .a = op.dout.as<T>(),
      .lda = leading_dimension(op.dout),
      .transpose_a = true,
      .b = op.x.as<T>(),
      .ldb = leading_dimension(op.x),
      .c = op.dweight.as<T>(),
      .ldc = leading_dimension(op.dweight),
      .beta = T{1},
  };
}

// Threads share the columns, so that every element is summed in the order of the rows.
template <typename T>
void add_bias_gradient(const LinearBackward& op) {
  const Rows<const T> dout(op.dout);
  T* dbias = op.dbias.as<T>();
  for_chunks(op.dout.shape[1], kColumnsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < op.dout.shape[0]; ++t) {
      const T* row = dout[t];
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) dbias[j] += row[j];
    }
  });
}

template <typename T>
void backward(const Context& context, const LinearBackward& op) {
  const std::int64_t has_dx = op.dx ? 1 : 0;
  const std::int64_t has_dweight = op.dweight ? 1 : 0;
  gemm_batch<T>(*context.scratch, has_dx + has_dweight,
                [&](std::int64_t i) { return i < has_dx ? input_gradient<T>(op) : weight_gradient<T>(op); });
  if (op.dbias) add_bias_gradient<T>(op);
}

}  // namespace

void linear_forward(const Context& context, const LinearForward& op) {
  for_dtype(op.x, [&]<typename T>() { forward<T>(context, op); });
}

void linear_backward(const Context& context, const LinearBackward& op) {
  for_dtype(op.dout, [&]<typename T>() { backward<T>(context, op); });
}

}  // namespace lathe::ops::cpu
