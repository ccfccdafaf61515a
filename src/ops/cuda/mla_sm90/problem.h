// The sizes of a call whose tensors were checked.
#pragma once

#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

template <typename Op>
MlaAttentionProblem problem_of(const Op& op) {
  const bool packed = op.cu_seqlens_q.rank > 0;
  const std::size_t token = packed ? 0 : 1;
  MlaAttentionProblem problem;
  problem.device = op.q_nope.device;
  problem.dtype = op.q_nope.dtype;
  problem.packed = packed;
  problem.causal = op.causal;
  problem.sequences = packed ? op.cu_seqlens_q.shape[0] - 1 : op.q_nope.shape[0];
  problem.s_q = op.q_nope.shape[token];
  problem.s_k = op.k_nope.shape[token];
  problem.h = op.q_nope.shape[token + 1];
  problem.dn = op.q_nope.shape[token + 2];
  problem.dr = op.q_pe.shape[token + 2];
  problem.dv = op.v.shape[token + 2];
  problem.softmax_scale = op.softmax_scale;
  return problem;
}

}  // namespace lathe::ops::cuda
