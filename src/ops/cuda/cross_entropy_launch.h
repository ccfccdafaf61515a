#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

struct CrossEntropyParams {
  Matrix logits;                          // [rows, vocab] fp32
  Matrix dlogits;                         // [rows, vocab] or none; its rows may begin where the logits' do
  const std::int32_t* targets = nullptr;  // [rows]
  std::int32_t ignored = 0;               // the target that counts for nothing
  std::int64_t rows = 0, vocab = 0;
  double scale = 1;
  double* losses = nullptr;  // [rows], scratch
  double* loss = nullptr;    // [1], added to
  Element gradient_element = Element::f32;
  bool wide = false;       // rows of whole 16 bytes
  unsigned slices = 1;     // set by the launch: the blocks that share a row
  std::int64_t slice = 0;  // and their elements each
};

// A target outside of the vocabulary stops the kernel with an error.
cudaError_t launch_cross_entropy(const CrossEntropyParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
