// out = x W^T (+ bias). Rows may be strided (last dimension contiguous); T = 0 is allowed.
// All of one type; beside bf16 tensors `out`, `dout` and the gradients of weight and bias may be fp32.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct LinearForward {
  TensorView x;             // [T, in]
  TensorView weight;        // [out, in]
  TensorView bias;          // [out] or none
  TensorView out;           // [T, out]
  bool accumulate = false;  // out += instead of out =
};

struct LinearBackward {
  TensorView dout;             // [T, out]
  TensorView x;                // [T, in]; needed for dweight only
  TensorView weight;           // [out, in]; needed for dx only
  TensorView dx;               // [T, in] or none
  bool accumulate_dx = false;  // dx += instead of dx =
  TensorView dweight;          // [out, in] or none, added to
  TensorView dbias;            // [out] or none, added to
};

void linear_forward(const Context& context, const LinearForward& op);
void linear_backward(const Context& context, const LinearBackward& op);

}  // namespace lathe::ops
