// The sum of squares of a tensor, for the clip norm over all gradients.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct SumOfSquares {
  TensorView x;    // contiguous
  TensorView out;  // [1] f64, added to
};

void sum_of_squares(const Context& context, const SumOfSquares& op);

}  // namespace lathe::ops
