// Rows of a table picked by token. All of one type; beside a bf16 `dout` `dtable` may be fp32.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct EmbeddingForward {
  TensorView tokens;  // [T] i32, each in [0, V)
  TensorView table;   // [V, H]
  TensorView out;     // [T, H], written
};

struct EmbeddingBackward {
  TensorView tokens;              // [T] i32
  TensorView dout;                // [T, H]
  TensorView dtable;              // [V, H], added to
  std::int64_t padding_idx = -1;  // this row gets no gradient; -1: none
};

void embedding_forward(const Context& context, const EmbeddingForward& op);
void embedding_backward(const Context& context, const EmbeddingBackward& op);

}  // namespace lathe::ops
