#include "ops/swiglu.h"

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = 8192;

std::int64_t rows_per_chunk(std::int64_t width) {
  return std::max<std::int64_t>(1, kElementsPerChunk / std::max<std::int64_t>(width, 1));
}

// By e^-|x|, which cannot overflow.
template <typename T>
T sigmoid(T x) {
  const T e = fast_exp_flushed(x < 0 ? x : -x);
  const T inverse = T{1} / (T{1} + e);
  return x < 0 ? e * inverse : inverse;
}

template <typename T>
void forward(const SwigluForward& op) {
  const std::int64_t width = op.out.shape[1];
  const Rows<const T> gate_up(op.gate_up);
  const Rows<T> out(op.out);
  for_chunks(op.out.shape[0], rows_per_chunk(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const T* gate = gate_up[t];
      const T* up = gate + width;
      T* to = out[t];
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) to[j] = gate[j] * sigmoid(gate[j]) * up[j];
    }
  });
}

template <typename T>
void backward(const SwigluBackward& op) {
  const std::int64_t width = op.dout.shape[1];
  const Rows<const T> gate_up(op.gate_up);
  const Rows<const T> dout(op.dout);
  const Rows<T> dgate_up(op.dgate_up);
  for_chunks(op.dout.shape[0], rows_per_chunk(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const T* gates = gate_up[t];
      const T* ups = gates + width;
      const T* douts = dout[t];
      T* dgates = dgate_up[t];
      T* dups = dgates + width;
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) {
        const T gate = gates[j];
        const T up = ups[j];
        const T s = sigmoid(gate);
        const T silu = gate * s;
        dgates[j] = douts[j] * up * (s + silu * (T{1} - s));
        dups[j] = douts[j] * silu;
      }
    }
  });
}

}  // namespace

void swiglu_forward(const Context&, const SwigluForward& op) {
  for_dtype(op.out, [&]<typename T>() { forward<T>(op); });
}

void swiglu_backward(const Context&, const SwigluBackward& op) {
  for_dtype(op.dout, [&]<typename T>() { backward<T>(op); });
}

}  // namespace lathe::ops::cpu
