// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW does it:
//   p -= lr * weight_decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr / (1 - b1^step) * m / (sqrt(v / (1 - b2^step)) + eps)      with g = grad * grad_scale
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct AdamW {
  TensorView parameter;  // contiguous, updated
  TensorView gradient;   // same shape; may be bf16 where the parameter is fp32, and fp32 where it is bf16
  TensorView m;          // same shape, updated
  TensorView v;          // same shape, updated
  TensorView rounded;    // same shape bf16 or none, written: the parameter that the model computes with
  double grad_scale = 1.0;
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;
  std::int64_t step = 1;  // from 1
};

void adamw(const Context& context, const AdamW& op);

}  // namespace lathe::ops
