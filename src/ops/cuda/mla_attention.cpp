#include "ops/mla_attention.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/mla_attention_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

constexpr std::int64_t kMostElements = 4096;  // of a query's, key's and value's row together: shared memory

AttentionOperand rows_of(const TensorView& tensor) {
  if (!tensor) return {};
  const auto& s = tensor.strides;
  if (tensor.rank == 3) return {tensor.data, 0, s[0], s[1]};
  return {tensor.data, s[0], s[1], s[2]};
}

AttentionOperand stats_of(const TensorView& tensor) {
  if (!tensor) return {};
  const auto& s = tensor.strides;
  if (tensor.rank == 2) return {tensor.data, 0, s[1], s[0]};
  return {tensor.data, s[0], s[2], s[1]};
}

template <typename Op>
AttentionParams params_for(std::string_view name, const Op& op) {
  const MlaAttentionProblem problem = problem_of(op);
  check(problem.dn + problem.dr + problem.dv <= kMostElements,
        "{}: head sizes {} + {} and {} are more than {} elements together", name, problem.dn, problem.dr, problem.dv,
        kMostElements);
  AttentionParams params;
  params.q_nope = rows_of(op.q_nope);
  params.q_pe = rows_of(op.q_pe);
  params.k_nope = rows_of(op.k_nope);
  params.k_pe = rows_of(op.k_pe);
  params.v = rows_of(op.v);
  params.out = rows_of(op.out);
  params.lse = stats_of(op.lse);
  if (problem.packed) {
    params.cu_seqlens_q = op.cu_seqlens_q.template as<std::int32_t>();
    params.cu_seqlens_k = op.cu_seqlens_k.template as<std::int32_t>();
  }
  params.sequences = problem.sequences;
  params.s_q = problem.s_q;
  params.s_k = problem.s_k;
  params.heads = static_cast<int>(problem.h);
  params.nope = static_cast<int>(problem.dn);
  params.rope = static_cast<int>(problem.dr);
  params.value = static_cast<int>(problem.dv);
  params.scale = static_cast<float>(problem.softmax_scale);
  params.causal = problem.causal;
  params.element = element_of(name, op.q_nope);
  return params;
}

}  // namespace

void mla_attention_forward(const Context& context, const MlaAttentionForward& op) {
  const AttentionParams params = params_for("mla_attention_forward", op);
  check_cuda(launch_attention_forward(params, stream_of(context)), "launching mla_attention_forward");
}

void mla_attention_backward(const Context& context, const MlaAttentionBackward& op) {
  const ArenaScope scope(*context.scratch);
  AttentionParams params = params_for("mla_attention_backward", op);
  params.dout = rows_of(op.dout);
  params.dlse = stats_of(op.dlse);
  params.dq_nope = rows_of(op.dq_nope);
  params.dq_pe = rows_of(op.dq_pe);
  params.dk_nope = rows_of(op.dk_nope);
  params.dk_pe = rows_of(op.dk_pe);
  params.dv = rows_of(op.dv);
  const std::int64_t batches = params.cu_seqlens_q == nullptr ? params.sequences : 1;
  params.delta = take_scratch<float>(context, batches * params.s_q * params.heads);
  params.dk_pe_parts = take_scratch<float>(context, batches * params.s_k * params.heads * params.rope);
  check_cuda(launch_attention_backward(params, stream_of(context)), "launching mla_attention_backward");
}

}  // namespace lathe::ops::cuda
