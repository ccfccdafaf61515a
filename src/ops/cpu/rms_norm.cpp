#include "ops/rms_norm.h"

#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/rows.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 64;

template <typename T>
T sum_of_squares_of_row(const T* x, std::int64_t width) {
  T squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t j = 0; j < width; ++j) squares += x[j] * x[j];
  return squares;
}

// sum = x + residual, and the sum of its squares.
template <typename T>
T add_residual(const T* x, const T* residual, std::int64_t width, T* sum) {
  T squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t j = 0; j < width; ++j) {
    const T value = x[j] + residual[j];
    sum[j] = value;
    squares += value * value;
  }
  return squares;
}

template <typename T>
void forward(const RmsNormForward& op) {
  const std::int64_t width = op.x.shape[1];
  const Rows<const T> x(op.x);
  const Rows<const T> residual(op.residual);
  const Rows<T> sum(op.sum);
  const Rows<T> out(op.out);
  const T* weight = op.weight.as<T>();
  T* rstds = op.rstd ? op.rstd.as<T>() : nullptr;
  for_chunks(op.x.shape[0], kRowsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const T squares = residual ? add_residual(x[t], residual[t], width, sum[t]) : sum_of_squares_of_row(x[t], width);
      const T rstd = T{1} / std::sqrt(squares / static_cast<T>(width) + static_cast<T>(op.eps));
      if (rstds != nullptr) rstds[t] = rstd;
      const T* normed = residual ? sum[t] : x[t];
      T* to = out[t];
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) to[j] = normed[j] * rstd * weight[j];
    }
  });
}

// With n = x * rstd and g = dout * weight: dx = rstd * (g - n * mean(g * n)) + dsum, dweight = sum over rows of dout *
// n.
template <typename T>
void backward_row(const RmsNormBackward& op, std::int64_t t, T* dweight) {
  const std::int64_t width = op.x.shape[1];
  const T* x = Rows<const T>(op.x)[t];
  const T* dout = Rows<const T>(op.dout)[t];
  const T* weight = op.weight.as<T>();
  const T rstd = op.rstd.as<T>()[t];
  T product = 0;
#pragma omp simd reduction(+ : product)
  for (std::int64_t j = 0; j < width; ++j) {
    const T scaled = dout[j] * x[j] * rstd;
    dweight[j] += scaled;
    product += scaled * weight[j];
  }
  const T factor = product / static_cast<T>(width) * rstd;
  T* dx = Rows<T>(op.dx)[t];
  if (op.dsum) {
    const T* dsum = Rows<const T>(op.dsum)[t];
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) dx[j] = rstd * (dout[j] * weight[j] - x[j] * factor) + dsum[j];
  } else {
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) dx[j] = rstd * (dout[j] * weight[j] - x[j] * factor);
  }
}

template <typename T>
void backward(const Context& context, const RmsNormBackward& op) {
  const std::int64_t rows = op.x.shape[0];
  const std::int64_t width = op.x.shape[1];
  const std::int64_t chunks = (rows + kRowsPerChunk - 1) / kRowsPerChunk;
  const ArenaScope scope(*context.scratch);
  const Rows<T> partials(context.scratch->take(op.x.dtype, {chunks, width}));
  for_chunks(rows, kRowsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    T* partial = partials[begin / kRowsPerChunk];
    std::fill_n(partial, width, T{0});
    for (std::int64_t t = begin; t < end; ++t) backward_row(op, t, partial);
  });
  T* dweight = op.dweight.as<T>();
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const T* partial = partials[chunk];
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) dweight[j] += partial[j];
  }
}

}  // namespace

void rms_norm_forward(const Context&, const RmsNormForward& op) {
  for_dtype(op.x, [&]<typename T>() { forward<T>(op); });
}

void rms_norm_backward(const Context& context, const RmsNormBackward& op) {
  for_dtype(op.x, [&]<typename T>() { backward<T>(context, op); });
}

}  // namespace lathe::ops::cpu
