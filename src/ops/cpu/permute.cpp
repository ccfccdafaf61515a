#include "ops/permute.h"

#include <cstring>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 32;

// Row `t` of a matrix whose rows are contiguous in themselves.
template <typename T>
T* row(const TensorView& matrix, std::int64_t t) {
  return matrix.as<T>() + t * matrix.strides[0];
}

// out = a + b; b may be absent, a may be out.
template <typename T>
void add(const T* a, const T* b, std::int64_t count, T* out) {
  if (b == nullptr) {
    if (a != out) std::memcpy(out, a, static_cast<std::size_t>(count) * sizeof(T));
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

// out = base + the sum of the rows x[map[j]] times weights[j], in the order of j; without weights times 1.
// base is null (0) or a row that may be out. Two rows a pass: half the loads and stores of out.
template <typename T>
void add_rows(const T* base, const TensorView& x, const std::int32_t* map, const T* weights, std::int64_t k,
              std::int64_t count, T* out) {
  std::int64_t j = 0;
  const auto weight = [&](std::int64_t at) { return weights == nullptr ? T(1) : weights[at]; };
  if (base == nullptr) {
    const T* first = row<T>(x, map[0]);
    const T w = weight(0);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) out[i] = w * first[i];
    base = out;
    j = 1;
  }
  for (; j + 1 < k; j += 2, base = out) {
    const T* first = row<T>(x, map[j]);
    const T* second = row<T>(x, map[j + 1]);
    const T w0 = weight(j);
    const T w1 = weight(j + 1);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) out[i] = (base[i] + w0 * first[i]) + w1 * second[i];
  }
  if (j < k) {
    const T* first = row<T>(x, map[j]);
    const T w = weight(j);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) out[i] = base[i] + w * first[i];
  }
}

template <typename T>
void scatter_rows(const PermuteForward& op, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = op.row_map.shape[1];
  const auto bytes = static_cast<std::size_t>(op.x.shape[1]) * sizeof(T);
  for (std::int64_t t = begin; t < end; ++t) {
    const auto* map = row<std::int32_t>(op.row_map, t);
    for (std::int64_t j = 0; j < k; ++j) std::memcpy(row<T>(op.out, map[j]), row<T>(op.x, t), bytes);
  }
}

template <typename T>
void combine_rows(const UnpermuteForward& op, std::int64_t begin, std::int64_t end) {
  const std::int64_t count = op.out.shape[1];
  const TensorView& first = op.residual ? op.residual : op.shared;
  for (std::int64_t t = begin; t < end; ++t) {
    T* out = row<T>(op.out, t);
    const T* base = nullptr;
    if (first) {
      add(row<T>(first, t), op.residual && op.shared ? row<T>(op.shared, t) : nullptr, count, out);
      base = out;
    }
    add_rows(base, op.x, row<std::int32_t>(op.row_map, t), row<T>(op.weights, t), op.row_map.shape[1], count, out);
  }
}

// dx = weight * dout; returns the dot product of dout and x. dx may be x: each element is read before it is written.
template <typename T>
T combine_row_backward(const T* dout, const T* x, T weight, std::int64_t count, T* dx) {
  T dot = 0;
#pragma omp simd reduction(+ : dot)
  for (std::int64_t i = 0; i < count; ++i) {
    const T gradient = dout[i];
    dot += gradient * x[i];
    dx[i] = weight * gradient;
  }
  return dot;
}

template <typename T>
void combine_rows_backward(const UnpermuteBackward& op, std::int64_t begin, std::int64_t end) {
  for (std::int64_t t = begin; t < end; ++t) {
    const auto* map = row<std::int32_t>(op.row_map, t);
    for (std::int64_t j = 0; j < op.row_map.shape[1]; ++j)
      row<T>(op.dweights, t)[j] = combine_row_backward<T>(
          row<T>(op.dout, t), row<T>(op.x, map[j]), row<T>(op.weights, t)[j], op.dout.shape[1], row<T>(op.dx, map[j]));
  }
}

}  // namespace

// On one thread: two passes over T k integers cost less than starting a team.
void permute_plan(const Context&, const PermutePlan& op) {
  const std::int64_t num_tokens = op.indices.shape[0];
  const std::int64_t k = op.indices.shape[1];
  const std::int64_t num_experts = op.offsets.shape[0] - 1;
  auto* offsets = op.offsets.as<std::int32_t>();
  std::fill(offsets, offsets + num_experts + 1, 0);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const auto* indices = row<std::int32_t>(op.indices, t);
    for (std::int64_t j = 0; j < k; ++j) {
      check(indices[j] >= 0 && indices[j] < num_experts, "choice {} of row {} is expert {} of {}", j, t, indices[j],
            num_experts);
      ++offsets[indices[j] + 1];
    }
  }
  for (std::int64_t expert = 0; expert < num_experts; ++expert) offsets[expert + 1] += offsets[expert];
  std::vector<std::int32_t> next(offsets, offsets + num_experts);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const auto* indices = row<std::int32_t>(op.indices, t);
    auto* map = row<std::int32_t>(op.row_map, t);
    for (std::int64_t j = 0; j < k; ++j) map[j] = next[static_cast<std::size_t>(indices[j])]++;
  }
}

void permute_forward(const Context&, const PermuteForward& op) {
  for_dtype(op.x, [&]<typename T>() {
    for_chunks(op.x.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { scatter_rows<T>(op, begin, end); });
  });
}

void permute_backward(const Context&, const PermuteBackward& op) {
  for_dtype(op.dout, [&]<typename T>() {
    for_chunks(op.dx.shape[0], kRowsPerChunk, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* dx = row<T>(op.dx, t);
        add_rows<T>(op.accumulate ? dx : nullptr, op.dout, row<std::int32_t>(op.row_map, t), nullptr,
                    op.row_map.shape[1], op.dx.shape[1], dx);
      }
    });
  });
}

void unpermute_forward(const Context&, const UnpermuteForward& op) {
  for_dtype(op.x, [&]<typename T>() {
    for_chunks(op.out.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { combine_rows<T>(op, begin, end); });
  });
}

void unpermute_backward(const Context&, const UnpermuteBackward& op) {
  for_dtype(op.x, [&]<typename T>() {
    for_chunks(op.dout.shape[0], kRowsPerChunk,
               [&](std::int64_t begin, std::int64_t end) { combine_rows_backward<T>(op, begin, end); });
  });
}

}  // namespace lathe::ops::cpu
