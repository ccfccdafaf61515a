// The backward's kernels, as host code calls them. All return the launch's result; nothing waits or allocates.
#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/mla_sm90/backward_params.h"

namespace lathe::ops::cuda {

// Sets what the kernels need on the current device: once a device, before the first launch.
cudaError_t prepare_backward_kernels();
cudaError_t prepare_convert_kernel();

// In this order. The main kernel and the conversion begin while the kernel before them ends, so nothing else may come
// between them.
cudaError_t launch_prepare_backward(const BackwardParams& params, cudaStream_t stream);
cudaError_t launch_backward(const BackwardMaps& maps, const BackwardParams& params, cudaStream_t stream);
cudaError_t launch_convert_backward(const BackwardParams& params, cudaStream_t stream);

// Zeros for [batches, tokens, heads, columns], columns a multiple of 8 and at most 256.
cudaError_t launch_zero_rows(const BackwardRows& to, int batches, int tokens, int heads, int columns,
                             cudaStream_t stream);

}  // namespace lathe::ops::cuda
