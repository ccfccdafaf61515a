// The forward's kernels, as host code calls them. All return the launch's result; nothing waits or allocates.
#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/mla_sm90/forward_params.h"

namespace lathe::ops::cuda {

// Sets what the kernels need on the current device: once a device, before the first launch.
cudaError_t prepare_forward_kernels();

// `cluster`: blocks that share keys and values, 1 or 2; 1 for packed sequences. `blocks` is a multiple of it.
cudaError_t launch_forward(const ForwardMaps& maps, const ForwardParams& params, bool packed, int cluster, int blocks,
                           cudaStream_t stream);

// The row tiles of packed sequences, longest first: fills params.tiles and params.tile_count.
struct PackedSequences {
  const int* cu_seqlens_q = nullptr;  // [count + 1]
  const int* cu_seqlens_k = nullptr;
  int count = 0;
  int total_k = 0;
  bool causal = true;
};
cudaError_t launch_list_tiles(const PackedSequences& sequences, PackedTile* tiles, int* tile_count,
                              cudaStream_t stream);

// There are no keys: out = 0, lse = -inf for every row of `rows` tokens in each of `batches`.
cudaError_t launch_fill_empty(const ForwardParams& params, int batches, int rows, cudaStream_t stream);

}  // namespace lathe::ops::cuda
