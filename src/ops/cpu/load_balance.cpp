#include "ops/load_balance.h"

#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kRowsPerChunk = 256;

// Each expert's choices and sum of scores over the rows [begin, end).
template <typename T>
void count_rows(const LoadBalance& op, std::int64_t begin, std::int64_t end, std::int64_t* counts, double* sums) {
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t k = op.indices.shape[1];
  std::fill(counts, counts + num_experts, 0);
  std::fill(sums, sums + num_experts, 0.0);
  for (std::int64_t t = begin; t < end; ++t) {
    const T* scores = op.scores.as<T>() + t * op.scores.strides[0];
#pragma omp simd
    for (std::int64_t i = 0; i < num_experts; ++i) sums[i] += static_cast<double>(scores[i]);
    const std::int32_t* indices = op.indices.as<std::int32_t>() + t * op.indices.strides[0];
    for (std::int64_t j = 0; j < k; ++j) ++counts[indices[j]];
  }
}

// The same over the rows of one scope: chunks in parallel, added up in their order.
template <typename T>
void count_scope(const Context& context, const LoadBalance& op, std::int64_t begin, std::int64_t rows,
                 std::int64_t* counts, double* sums) {
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t chunks = (rows + kRowsPerChunk - 1) / kRowsPerChunk;
  const ArenaScope scope(*context.scratch);
  auto* chunk_counts = context.scratch->take(DType::i64, {chunks, num_experts}).as<std::int64_t>();
  auto* chunk_sums = context.scratch->take(DType::f64, {chunks, num_experts}).as<double>();
  for_chunks(rows, kRowsPerChunk, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t at = first / kRowsPerChunk * num_experts;
    count_rows<T>(op, begin + first, begin + last, chunk_counts + at, chunk_sums + at);
  });
  std::fill(counts, counts + num_experts, 0);
  std::fill(sums, sums + num_experts, 0.0);
  for (std::int64_t at = 0; at < chunks * num_experts; ++at) {
    counts[at % num_experts] += chunk_counts[at];
    sums[at % num_experts] += chunk_sums[at];
  }
}

template <typename T>
void run(const Context& context, const LoadBalance& op) {
  const std::int64_t num_experts = op.scores.shape[1];
  const std::int64_t k = op.indices.shape[1];
  const std::int64_t num_scopes = op.dscores.shape[0];
  const std::int64_t rows = op.scores.shape[0] / num_scopes;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(num_experts));
  std::vector<double> sums(static_cast<std::size_t>(num_experts));
  double loss = 0;
  for (std::int64_t scope = 0; scope < num_scopes; ++scope) {
    count_scope<T>(context, op, scope * rows, rows, counts.data(), sums.data());
    std::int64_t tokens = rows;
    if (op.accumulated) {
      auto* accumulated = op.accumulated.as<std::int64_t>();
      for (std::int64_t i = 0; i < num_experts; ++i)
        counts[static_cast<std::size_t>(i)] = accumulated[i] += counts[static_cast<std::size_t>(i)];
      tokens = accumulated[num_experts] += rows;
    }
    // Each row's score of expert i weighs coef / total * E * f_i: T_scope and the mean's 1 / T_scope cancel.
    const double choices = static_cast<double>(tokens) * static_cast<double>(k);
    T* dscores = op.dscores.as<T>() + scope * op.dscores.strides[0];
    for (std::int64_t i = 0; i < num_experts; ++i) {
      const auto e = static_cast<std::size_t>(i);
      const double share = tokens == 0 ? 0.0 : static_cast<double>(counts[e]) / choices;
      const double gradient = op.coef_over_tokens * static_cast<double>(num_experts) * share;
      dscores[i] = static_cast<T>(gradient);
      loss += gradient * sums[e];
    }
  }
  *op.loss.as<double>() += loss;
}

}  // namespace

void load_balance(const Context& context, const LoadBalance& op) {
  for_dtype(op.scores, [&]<typename T>() { run<T>(context, op); });
}

}  // namespace lathe::ops::cpu
