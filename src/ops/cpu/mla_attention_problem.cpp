#include "ops/cpu/mla_attention_problem.h"

#include <algorithm>

namespace lathe::ops::cpu {

std::int64_t AttentionProblem::max_queries() const {
  std::int64_t most = 0;
  for (const Sequence& sequence : sequences) most = std::max(most, sequence.q_len);
  return most;
}

std::int64_t AttentionProblem::visible(const Sequence& sequence, std::int64_t index) const {
  if (!causal) return sequence.k_len;
  return std::clamp(index + 1 + sequence.k_len - sequence.q_len, std::int64_t{0}, sequence.k_len);
}

AttentionProblem make_problem(const TensorView& q_nope, const TensorView& q_pe, const TensorView& k_nope,
                              const TensorView& v, const TensorView& cu_seqlens_q, const TensorView& cu_seqlens_k) {
  const bool packed = static_cast<bool>(cu_seqlens_q);
  const std::size_t head = packed ? 1 : 2;
  AttentionProblem problem;
  problem.h = q_nope.shape[head];
  problem.dn = q_nope.shape[head + 1];
  problem.dr = q_pe.shape[head + 1];
  problem.dv = v.shape[head + 1];
  if (packed) {
    const auto* q = cu_seqlens_q.as<std::int32_t>();
    const auto* k = cu_seqlens_k.as<std::int32_t>();
    for (std::int64_t i = 0; i + 1 < cu_seqlens_q.shape[0]; ++i)
      problem.sequences.push_back({0, q[i], q[i + 1] - q[i], k[i], k[i + 1] - k[i]});
  } else {
    for (std::int64_t batch = 0; batch < q_nope.shape[0]; ++batch)
      problem.sequences.push_back({batch, 0, q_nope.shape[1], 0, k_nope.shape[1]});
  }
  return problem;
}

std::byte* take_scratch(Arena& scratch, std::size_t bytes) {
  constexpr std::size_t kWord = sizeof(std::int64_t);
  return static_cast<std::byte*>(
      scratch.take(DType::i64, {static_cast<std::int64_t>((bytes + kWord - 1) / kWord)}).data);
}

}  // namespace lathe::ops::cpu
