#include "ops/work.h"

#include <algorithm>
#include <initializer_list>

#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/global_norm.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/load_balance.h"
#include "ops/mla_attention.h"
#include "ops/permute.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/router.h"
#include "ops/swiglu.h"

namespace lathe::ops {
namespace {

// Of each tensor once; optional ones that were not given count nothing.
double bytes_of(std::initializer_list<TensorView> tensors) {
  double sum = 0;
  for (const TensorView& tensor : tensors)
    if (tensor) sum += static_cast<double>(tensor.bytes());
  return sum;
}

Work moves(std::initializer_list<TensorView> tensors) { return {.bytes = bytes_of(tensors)}; }

// The tensor where it is read as well as written.
TensorView read_if(bool condition, const TensorView& tensor) { return condition ? tensor : TensorView{}; }

// Of a product with `weight` [..., out, in], by each row once.
double product_flops(std::int64_t rows, const TensorView& weight) {
  const auto in = static_cast<double>(weight.shape[static_cast<std::size_t>(weight.rank) - 1]);
  const auto out = static_cast<double>(weight.shape[static_cast<std::size_t>(weight.rank) - 2]);
  return 2 * static_cast<double>(rows) * in * out;
}

double attention_flops(const MlaAttentionProblem& problem) {
  auto pairs = static_cast<double>(problem.h) * static_cast<double>(problem.s_q) * static_cast<double>(problem.s_k);
  const auto sequences = static_cast<double>(std::max<std::int64_t>(1, problem.sequences));
  pairs = problem.packed ? pairs / sequences : pairs * sequences;
  if (problem.causal) pairs /= 2;
  return 2 * pairs * static_cast<double>(problem.dn + problem.dr + problem.dv);
}

}  // namespace

Work work_of(const EmbeddingForward& op) { return moves({op.tokens, op.out, op.out}); }

Work work_of(const EmbeddingBackward& op) {
  const TensorView touched = op.dtable.slice(0, 0, std::min(op.tokens.shape[0], op.dtable.shape[0]));
  return moves({op.tokens, op.dout, touched, touched});
}

Work work_of(const RmsNormForward& op) { return moves({op.x, op.residual, op.weight, op.out, op.sum, op.rstd}); }

Work work_of(const RmsNormBackward& op) {
  return moves({op.dout, op.x, op.weight, op.rstd, op.dsum, op.dx, op.dweight, op.dweight});
}

Work work_of(const LinearForward& op) {
  return {.flops = product_flops(op.x.shape[0], op.weight),
          .bytes = bytes_of({op.x, op.weight, op.bias, op.out, read_if(op.accumulate, op.out)})};
}

Work work_of(const LinearBackward& op) {
  Work work = moves({op.dout, op.dbias, op.dbias});
  if (op.dx) {
    work.flops += product_flops(op.dout.shape[0], op.weight);
    work.bytes += bytes_of({op.weight, op.dx, read_if(op.accumulate_dx, op.dx)});
  }
  if (op.dweight) {
    work.flops += product_flops(op.dout.shape[0], op.dweight);
    work.bytes += bytes_of({op.x, op.dweight, op.dweight});
  }
  return work;
}

Work work_of(const GroupedLinearForward& op) {
  return {.flops = product_flops(op.x.shape[0], op.weight), .bytes = bytes_of({op.x, op.weight, op.offsets, op.out})};
}

Work work_of(const GroupedLinearBackward& op) {
  return {.flops = product_flops(op.x.shape[0], op.weight) + product_flops(op.x.shape[0], op.dweight),
          .bytes = bytes_of({op.dout, op.x, op.weight, op.offsets, op.dx, op.dweight, op.dweight})};
}

Work work_of(const SwigluForward& op) { return moves({op.gate_up, op.out}); }
Work work_of(const SwigluBackward& op) { return moves({op.dout, op.gate_up, op.dgate_up}); }

Work work_of(const Rope& op) { return moves({op.x, op.out, op.positions, op.cos, op.sin}); }

Work work_of(const MlaAttentionForward& op) {
  return {.flops = attention_flops(problem_of(op)),
          .bytes = bytes_of(
              {op.q_nope, op.q_pe, op.k_nope, op.k_pe, op.v, op.out, op.lse, op.cu_seqlens_q, op.cu_seqlens_k})};
}

Work work_of(const MlaAttentionBackward& op) {
  return {.flops = 2.5 * attention_flops(problem_of(op)),
          .bytes = bytes_of({op.q_nope, op.q_pe, op.k_nope, op.k_pe, op.v, op.out, op.lse, op.dout, op.dlse, op.dq_nope,
                             op.dq_pe, op.dk_nope, op.dk_pe, op.dv, op.cu_seqlens_q, op.cu_seqlens_k})};
}

Work work_of(const RouterForward& op) { return moves({op.logits, op.scores, op.indices, op.weights}); }
Work work_of(const RouterBackward& op) { return moves({op.scores, op.indices, op.dweights, op.dscores, op.dlogits}); }

Work work_of(const LoadBalance& op) {
  return moves({op.scores, op.indices, op.accumulated, op.accumulated, op.loss, op.loss, op.dscores});
}

Work work_of(const PermutePlan& op) { return moves({op.indices, op.offsets, op.row_map}); }
Work work_of(const PermuteForward& op) { return moves({op.x, op.row_map, op.out}); }
Work work_of(const PermuteBackward& op) { return moves({op.dout, op.row_map, op.dx, read_if(op.accumulate, op.dx)}); }
Work work_of(const UnpermuteForward& op) {
  return moves({op.x, op.weights, op.row_map, op.residual, op.shared, op.out});
}
Work work_of(const UnpermuteBackward& op) { return moves({op.dout, op.x, op.weights, op.row_map, op.dx, op.dweights}); }

Work work_of(const CrossEntropy& op) { return moves({op.logits, op.targets, op.loss, op.loss, op.dlogits}); }

Work work_of(const AdamW& op) {
  return moves({op.parameter, op.parameter, op.gradient, op.m, op.m, op.v, op.v, op.rounded});
}

Work work_of(const SumOfSquares& op) { return moves({op.x, op.out, op.out}); }

}  // namespace lathe::ops
