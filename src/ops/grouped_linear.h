// One linear layer a group over rows sorted by group: the experts. Rows [offsets[e], offsets[e + 1]) meet weight[e].
// A group without rows gets no gradient. Rows from offsets[E] on are not read or written.
// All of one type; beside bf16 tensors `dweight` may be fp32.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct GroupedLinearForward {
  TensorView x;        // [R, in]
  TensorView weight;   // [E, out, in]
  TensorView offsets;  // [E + 1] i32, on the device, ascending from 0
  TensorView out;      // [R, out], written
};

struct GroupedLinearBackward {
  TensorView dout;     // [R, out]
  TensorView x;        // [R, in]
  TensorView weight;   // [E, out, in]
  TensorView offsets;  // [E + 1] i32
  TensorView dx;       // [R, in], written
  TensorView dweight;  // [E, out, in], added to
};

void grouped_linear_forward(const Context& context, const GroupedLinearForward& op);
void grouped_linear_backward(const Context& context, const GroupedLinearBackward& op);

}  // namespace lathe::ops
