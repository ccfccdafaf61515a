// Cross-entropy of one chunk of logits, and its gradient in the same pass.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

inline constexpr std::int32_t kIgnoreIndex = -100;  // a target that counts for nothing

struct CrossEntropy {
  TensorView logits;   // [C, V] fp32 (or fp64)
  TensorView targets;  // [C] i32, each in [0, V) or kIgnoreIndex
  double scale = 1.0;  // 1 / N, N the unmasked targets of the global batch
  TensorView loss;     // [1] f64, added to: scale * sum of the rows' losses
  TensorView dlogits;  // [C, V] or none, written: scale * (softmax - onehot), 0 for ignored rows; may be logits itself
};

void cross_entropy(const Context& context, const CrossEntropy& op);

}  // namespace lathe::ops
