// Tokens to experts and back. Row t of x goes to k rows of the sorted order, one an expert chosen; inside an expert the
// rows keep the order of (t, j).
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct PermutePlan {
  TensorView indices;  // [T, k] i32
  TensorView offsets;  // [E + 1] i32, written: where each expert's rows begin
  TensorView row_map;  // [T, k] i32, written: the sorted row of choice (t, j)
};

struct PermuteForward {
  TensorView x;        // [T, H]
  TensorView row_map;  // [T, k] i32
  TensorView out;      // [T k, H], written
};

struct PermuteBackward {
  TensorView dout;          // [T k, H]
  TensorView row_map;       // [T, k] i32
  TensorView dx;            // [T, H]: the sum over the k rows
  bool accumulate = false;  // dx += instead of dx =
};

// out[t] = residual[t] + shared[t] + sum_j weights[t, j] * x[row_map[t, j]]
struct UnpermuteForward {
  TensorView x;         // [T k, H]
  TensorView weights;   // [T, k]
  TensorView row_map;   // [T, k] i32
  TensorView residual;  // [T, H] or none
  TensorView shared;    // [T, H] or none
  TensorView out;       // [T, H], written
};

struct UnpermuteBackward {
  TensorView dout;      // [T, H]
  TensorView x;         // [T k, H]
  TensorView weights;   // [T, k]
  TensorView row_map;   // [T, k] i32
  TensorView dx;        // [T k, H], written; may be x itself
  TensorView dweights;  // [T, k], written
};

void permute_plan(const Context& context, const PermutePlan& op);
void permute_forward(const Context& context, const PermuteForward& op);
void permute_backward(const Context& context, const PermuteBackward& op);
void unpermute_forward(const Context& context, const UnpermuteForward& op);
void unpermute_backward(const Context& context, const UnpermuteBackward& op);

}  // namespace lathe::ops
