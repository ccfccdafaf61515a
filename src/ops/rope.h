// Rotary position embedding (Su et al., 2021), interleaved: the pair (x[2i], x[2i + 1]) of a row at position p is
// turned by the angle whose cosine and sine are cos[p, i] and sin[p, i]. The tables carry YaRN's factors
// (model/rope_tables.h).
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct Rope {
  TensorView x;            // [T, h, d], any row and head strides; d even
  TensorView out;          // [T, h, d], written; may be x itself
  TensorView positions;    // [T] i32, each in [0, P)
  TensorView cos;          // [P, d / 2] fp32
  TensorView sin;          // [P, d / 2] fp32
  bool transpose = false;  // turn back: the gradient of the forward
};

void rope(const Context& context, const Rope& op);

}  // namespace lathe::ops
