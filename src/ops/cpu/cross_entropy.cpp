#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/reduce.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = 8192;
constexpr std::int64_t kBlock = 1024;  // exponentials are summed in T within a block, in fp64 over blocks

void check_targets(const CrossEntropy& op) {
  const std::int64_t vocab = op.logits.shape[1];
  const std::int32_t* targets = op.targets.as<std::int32_t>();
  for (std::int64_t t = 0; t < op.targets.shape[0]; ++t)
    if (targets[t] != kIgnoreIndex && (targets[t] < 0 || targets[t] >= vocab))
      fail("cross_entropy: target {} is {}, expected [0, {}) or {}", t, targets[t], vocab, kIgnoreIndex);
}

// The sum of exp(x - shift); the terms are stored in `terms` unless that is null. `terms` may be x.
template <typename T>
double sum_of_exponentials(const T* x, T shift, std::int64_t count, T* terms) {
  double total = 0;
  T buffer[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, count - begin);
    const T* from = x + begin;
    T* to = terms != nullptr ? terms + begin : buffer;
#pragma omp simd
    for (std::int64_t j = 0; j < size; ++j) to[j] = fast_exp(from[j] - shift);
    total += static_cast<double>(sum_over<T>(size, [to](auto at) { return at(to); }));
  }
  return total;
}

// Returns the row's loss; writes scale * (softmax - onehot) to `gradient` unless that is null.
template <typename T>
double row_loss(const T* logits, std::int64_t vocab, std::int32_t target, double scale, T* gradient) {
  const T largest = max_of(logits, vocab);
  const T chosen = logits[target];
  const double total = sum_of_exponentials(logits, largest, vocab, gradient);
  if (gradient != nullptr) {
    const T factor = static_cast<T>(scale / total);
#pragma omp simd
    for (std::int64_t j = 0; j < vocab; ++j) gradient[j] *= factor;
    gradient[target] -= static_cast<T>(scale);
  }
  return std::log(total) + (static_cast<double>(largest) - static_cast<double>(chosen));
}

template <typename T>
void run(const Context& context, const CrossEntropy& op) {
  const std::int64_t count = op.logits.shape[0];
  const std::int64_t vocab = op.logits.shape[1];
  const Rows<const T> logits(op.logits);
  const Rows<T> dlogits(op.dlogits);
  const std::int32_t* targets = op.targets.as<std::int32_t>();
  const ArenaScope scope(*context.scratch);
  double* losses = context.scratch->take(DType::f64, {count}).as<double>();
  for_chunks(count, std::max<std::int64_t>(1, kElementsPerChunk / vocab), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      T* gradient = dlogits ? dlogits[t] : nullptr;
      if (targets[t] != kIgnoreIndex) {
        losses[t] = row_loss(logits[t], vocab, targets[t], op.scale, gradient);
      } else {
        losses[t] = 0;
        if (gradient != nullptr) std::fill_n(gradient, vocab, T{0});
      }
    }
  });
  double sum = 0;
  for (std::int64_t t = 0; t < count; ++t) sum += losses[t];
  *op.loss.as<double>() += op.scale * sum;
}

}  // namespace

void cross_entropy(const Context& context, const CrossEntropy& op) {
  check_targets(op);
  for_dtype(op.logits, [&]<typename T>() { run<T>(context, op); });
}

}  // namespace lathe::ops::cpu
