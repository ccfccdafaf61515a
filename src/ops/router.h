// The choice of experts (DeepSeek-V2, section 2.2): softmax over all experts, then the top k.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

enum class TopkMethod {
  greedy,                // the k largest scores
  group_limited_greedy,  // the topk_group groups of largest maximum; the scores of the others count as 0
};

struct RouterForward {
  TensorView logits;  // [T, E] fp32 (or fp64)
  TopkMethod method = TopkMethod::greedy;
  std::int64_t num_groups = 1;  // group_limited_greedy: E / num_groups experts each, in order
  std::int64_t topk_group = 1;
  double scaling_factor = 1.0;  // weight = score * scaling_factor
  bool normalize = false;       // instead: weight = score / (sum of the k scores + 1e-20)
  bool force_balanced = false;  // benchmarks: choice j of row t is expert (t k + j) mod E
  TensorView scores;            // [T, E], written: softmax of the logits; may be the logits themselves
  TensorView indices;           // [T, k] i32, written: chosen experts by falling score; ties: the lower index first
  TensorView weights;           // [T, k], written
};

struct RouterBackward {
  TensorView scores;    // [T, E]
  TensorView indices;   // [T, k] i32
  TensorView dweights;  // [T, k]
  TensorView dscores;  // [S, E] or none: the balance loss's gradient of each score, for the S scopes of T / S rows each
  double scaling_factor = 1.0;
  bool normalize = false;
  TensorView dlogits;  // [T, E], written
};

void router_forward(const Context& context, const RouterForward& op);
void router_backward(const Context& context, const RouterBackward& op);

}  // namespace lathe::ops
