#include "ops/rms_norm.h"

#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/reduce.h"
#include "ops/cpu/rows.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 64;

template <typename T>
void add(const T* x, const T* y, std::int64_t width, T* sum) {
#pragma omp simd
  for (std::int64_t j = 0; j < width; ++j) sum[j] = x[j] + y[j];
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
      const T* row = x[t];
      if (residual) {
        add(row, residual[t], width, sum[t]);
        row = sum[t];
      }
      const T squares = sum_over<T>(width, [row](auto at) { return at(row) * at(row); });
      const T rstd = T{1} / std::sqrt(squares / static_cast<T>(width) + static_cast<T>(op.eps));
      if (rstds != nullptr) rstds[t] = rstd;
      T* to = out[t];
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) to[j] = row[j] * rstd * weight[j];
    }
  });
}

// With n = x * rstd and g = dout * weight: dx = rstd * (g - n * mean(g * n)) + dsum; dweight gets dout * n.
template <typename T>
void backward_row(const RmsNormBackward& op, std::int64_t t, T* dweight) {
  const std::int64_t width = op.x.shape[1];
  const T* x = Rows<const T>(op.x)[t];
  const T* dout = Rows<const T>(op.dout)[t];
  const T* weight = op.weight.as<T>();
  const T rstd = op.rstd.as<T>()[t];
  const T product = sum_over<T>(width, [=](auto at) { return at(dout) * at(x) * at(weight); });
  const T factor = product * rstd * rstd / static_cast<T>(width);
#pragma omp simd
  for (std::int64_t j = 0; j < width; ++j) dweight[j] += dout[j] * x[j] * rstd;
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
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) add<T>(dweight, partials[chunk], width, dweight);
}

}  // namespace

void rms_norm_forward(const Context&, const RmsNormForward& op) {
  for_dtype(op.x, [&]<typename T>() { forward<T>(op); });
}

void rms_norm_backward(const Context& context, const RmsNormBackward& op) {
  for_dtype(op.x, [&]<typename T>() { backward<T>(context, op); });
}

}  // namespace lathe::ops::cpu
