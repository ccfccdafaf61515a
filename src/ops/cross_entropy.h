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
  // [C, V] or none, written: scale * (softmax - onehot), 0 for ignored rows. Of the logits' type, or bf16 beside fp32.
  // Its rows may begin where the logits' do: then each takes the place of its own logits.
  TensorView dlogits;
};

void cross_entropy(const Context& context, const CrossEntropy& op);

}  // namespace lathe::ops
