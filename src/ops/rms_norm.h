// RMSNorm (Zhang and Sennrich, 2019), with the residual addition before it in the same pass:
//   sum = x + residual;  out = weight * sum / sqrt(mean(sum^2) + eps)
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct RmsNormForward {
  TensorView x;         // [T, H]; rows may be strided
  TensorView residual;  // [T, H] or none
  TensorView weight;    // [H]
  double eps = 0;
  TensorView out;   // [T, H], written
  TensorView sum;   // [T, H], written; required with a residual, none without; may be x itself
  TensorView rstd;  // [T] fp32 (fp64 for fp64 tensors), written: 1 / sqrt(mean + eps); may be none
};

struct RmsNormBackward {
  TensorView dout;     // [T, H]
  TensorView x;        // [T, H]: the forward's sum where it had a residual, else its x
  TensorView weight;   // [H]
  TensorView rstd;     // [T]
  TensorView dsum;     // [T, H] or none: gradient that reaches the sum by another way, added into dx
  TensorView dx;       // [T, H], written; may be dsum or dout itself
  TensorView dweight;  // [H], added to; may be fp32 beside bf16 tensors
};

void rms_norm_forward(const Context& context, const RmsNormForward& op);
void rms_norm_backward(const Context& context, const RmsNormBackward& op);

}  // namespace lathe::ops
