// out = silu(gate) * up (Shazeer, 2020). Gate and up are the halves of a row.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct SwigluForward {
  TensorView gate_up;  // [R, 2 I]
  TensorView out;      // [R, I], written
};

struct SwigluBackward {
  TensorView dout;      // [R, I]
  TensorView gate_up;   // [R, 2 I]
  TensorView dgate_up;  // [R, 2 I], written; may be gate_up itself
};

void swiglu_forward(const Context& context, const SwigluForward& op);
void swiglu_backward(const Context& context, const SwigluBackward& op);

}  // namespace lathe::ops
