#include "ops/rope.h"

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 64;

// Both elements of a pair are read before one is written, so `out` may be `x`.
template <typename T>
void turn(const T* x, T* out, const float* cos, const float* sin, T direction, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const T c = T{cos[i]};
    const T s = direction * T{sin[i]};
    const T even = x[2 * i];
    const T odd = x[2 * i + 1];
    out[2 * i] = even * c - odd * s;
    out[2 * i + 1] = even * s + odd * c;
  }
}

template <typename T>
void rope_rows(const Rope& op, std::int64_t begin, std::int64_t end) {
  const auto* positions = op.positions.as<std::int32_t>();
  const T direction = op.transpose ? T{-1} : T{1};
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t position = positions[t * op.positions.strides[0]];
    const float* cos = op.cos.as<float>() + position * op.cos.strides[0];
    const float* sin = op.sin.as<float>() + position * op.sin.strides[0];
    for (std::int64_t head = 0; head < op.x.shape[1]; ++head)
      turn(op.x.as<T>() + t * op.x.strides[0] + head * op.x.strides[1],
           op.out.as<T>() + t * op.out.strides[0] + head * op.out.strides[1], cos, sin, direction, op.x.shape[2] / 2);
  }
}

}  // namespace

void rope(const Context&, const Rope& op) {
  for_dtype(op.x, [&]<typename T>() {
    for_chunks(op.x.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { rope_rows<T>(op, begin, end); });
  });
}

}  // namespace lathe::ops::cpu
