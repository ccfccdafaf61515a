// The balance loss of one layer and micro-batch (docs/numerics.md): sum over scopes of
//   coef / total_tokens * T_scope * E * sum_i f_i P_i
// with f_i = counts_i / (tokens counted * k) and P_i the mean score of expert i over the scope; f carries no gradient.
// The rows are S scopes of T / S rows each, in order: S = 1 for micro-batch and global-batch, S = sequences for
// sequence.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct LoadBalance {
  TensorView scores;            // [T, E]
  TensorView indices;           // [T, k] i32
  TensorView accumulated;       // [E + 1] i64 or none (global-batch, S = 1 only): the counts of this step's earlier
                                // micro-batches and their tokens (last element); this one's are added before use
  double coef_over_tokens = 0;  // coef / routed positions of the whole global batch
  TensorView loss;              // [1] f64, added to
  TensorView dscores;           // [S, E], written: coef_over_tokens * E * f_i
};

void load_balance(const Context& context, const LoadBalance& op);

}  // namespace lathe::ops
