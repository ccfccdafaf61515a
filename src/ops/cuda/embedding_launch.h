#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct EmbeddingParams {
  const std::int32_t* tokens = nullptr;  // [rows]
  Matrix table;                          // [vocab, width]; the backward adds to it
  Matrix rows;                           // [count, width]: out, or dout
  std::int64_t count = 0, vocab = 0, width = 0, padding_idx = -1;
  const std::int32_t* order = nullptr;   // the backward's: positions by token, stable
  Element element = Element::f32;        // of the rows
  Element table_element = Element::f32;  // the backward's
  bool wide = false;                     // rows of whole 16 bytes
};

// A token outside of the table stops the kernel with an error.
cudaError_t launch_embedding_forward(const EmbeddingParams& params, cudaStream_t stream);
cudaError_t launch_embedding_backward(const EmbeddingParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
