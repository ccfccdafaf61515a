#include "ops/global_norm.h"

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/reduce.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = 16384;

template <typename T>
void run(const Context& context, const SumOfSquares& op) {
  const std::int64_t count = op.x.numel();
  const std::int64_t chunks = (count + kElementsPerChunk - 1) / kElementsPerChunk;
  const T* x = op.x.as<T>();
  const ArenaScope scope(*context.scratch);
  double* partials = context.scratch->take(DType::f64, {chunks}).as<double>();
  for_chunks(count, kElementsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    const T* from = x + begin;
    partials[begin / kElementsPerChunk] =
        sum_over<double>(end - begin, [from](auto at) { return at(from) * at(from); });
  });
  double total = 0;
  for (std::int64_t i = 0; i < chunks; ++i) total += partials[i];
  *op.out.as<double>() += total;
}

}  // namespace

void sum_of_squares(const Context& context, const SumOfSquares& op) {
  for_dtype(op.x, [&]<typename T>() { run<T>(context, op); });
}

}  // namespace lathe::ops::cpu
