// What forward and backward of the CPU's attention share: where a sequence's rows lie, and memory for each thread.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/tensor_view.h"
#include "ops/context.h"
#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {

// Queries and keys of a tile: both score tiles of the backward together fill a 32 KiB first-level cache.
inline constexpr int kTileQueries = 64;
inline constexpr int kTileKeys = 64;

// bf16 is computed in fp32.
template <typename IO>
using ComputeType = std::conditional_t<std::is_same_v<IO, double>, double, float>;

// The stride of rows of `count` elements: whole vectors, and whole blocks of a transposition.
inline constexpr int kTransposeBlock = 4;
template <typename T>
constexpr std::int64_t padded(std::int64_t count) {
  constexpr std::int64_t kStep = std::max(kLanes<T>, kTransposeBlock);
  return (count + kStep - 1) / kStep * kStep;
}
template <typename T>
constexpr int vectors(std::int64_t count) {
  return static_cast<int>((count + kLanes<T> - 1) / kLanes<T>);
}

// Rows of a dense [b, s, h, d] or packed [total, h, d] tensor (or of [b, h, s] and [h, total]), alike to the callers.
template <typename IO>
struct Operand {
  IO* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;

  IO* at(std::int64_t batch, std::int64_t token, std::int64_t head) const {
    return data + batch * batch_stride + token * token_stride + head * head_stride;
  }
};

template <typename IO>
Operand<IO> rows_of(const TensorView& tensor) {
  const auto& s = tensor.strides;
  IO* const data = tensor.as<std::remove_const_t<IO>>();
  if (tensor.rank == 3) return {data, 0, s[0], s[1]};
  return {data, s[0], s[1], s[2]};
}

template <typename IO>
Operand<IO> stats_of(const TensorView& tensor) {
  const auto& s = tensor.strides;
  IO* const data = tensor.as<std::remove_const_t<IO>>();
  if (tensor.rank == 2) return {data, 0, s[1], s[0]};
  return {data, s[0], s[2], s[1]};
}

// Calls body.template operator()<IO>() with the type of the inputs.
template <typename Body>
void for_input_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::f64:
      return body.template operator()<double>();
    case DType::bf16:
      return body.template operator()<bf16>();
    default:
      fail("mla_attention: the CPU takes f32, f64 and bf16, not {}", name_of(dtype));
  }
}

// One sequence: tokens [q_begin, q_begin + q_len) see tokens of [k_begin, k_begin + k_len), both of batch `batch`.
struct Sequence {
  std::int64_t batch = 0;
  std::int64_t q_begin = 0, q_len = 0;
  std::int64_t k_begin = 0, k_len = 0;
};

struct AttentionProblem {
  std::int64_t h = 0, dn = 0, dr = 0, dv = 0;
  double softmax_scale = 0;
  bool causal = true;
  std::vector<Sequence> sequences;

  std::int64_t qk() const { return dn + dr; }
  std::int64_t max_queries() const;
  // The number of keys that query `index` of a sequence sees: the first ones.
  std::int64_t visible(const Sequence& sequence, std::int64_t index) const;
};

// `q`, `k` and `v` in their own shapes; cu_seqlens only for packed inputs.
AttentionProblem make_problem(const TensorView& q_nope, const TensorView& q_pe, const TensorView& k_nope,
                              const TensorView& v, const TensorView& cu_seqlens_q, const TensorView& cu_seqlens_k);

// Hands out parts of a block of memory, 64-byte aligned. Without a block it only counts.
class Carver {
 public:
  explicit Carver(std::byte* block = nullptr) : block_(block) {}

  template <typename T>
  T* take(std::int64_t count) {
    std::byte* const part = block_ == nullptr ? nullptr : block_ + used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(part);
  }
  std::size_t used() const { return used_; }

 private:
  static constexpr std::size_t kAlignment = 64;

  std::byte* block_;
  std::size_t used_ = 0;
};

// A block of scratch memory of `bytes` bytes.
std::byte* take_scratch(Arena& scratch, std::size_t bytes);

// Calls body(task, buffers) for every task, on all threads; each thread has buffers of its own, carved by
// `carve(Carver&)`. Which thread runs a task must not matter.
template <typename Carve, typename Body>
void for_tasks(Arena& scratch, std::int64_t count, Carve&& carve, Body&& body) {
  Carver measure;
  carve(measure);
  const bool alone = count <= 1 || omp_in_parallel() != 0;
  const int threads = alone ? 1 : omp_get_max_threads();
  std::byte* const memory = take_scratch(scratch, measure.used() * static_cast<std::size_t>(threads));
  const auto run = [&](std::int64_t task, int thread) {
    Carver carver(memory + static_cast<std::size_t>(thread) * measure.used());
    const auto buffers = carve(carver);
    body(task, buffers);
  };
  if (alone) {
    for (std::int64_t task = 0; task < count; ++task) run(task, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t task = 0; task < count; ++task) run(task, omp_get_thread_num());
}

}  // namespace lathe::ops::cpu
