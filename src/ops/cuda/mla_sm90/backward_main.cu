#include "ops/cuda/mla_sm90/backward_kernel.cuh"
#include "ops/cuda/mla_sm90/backward_launch.h"

namespace lathe::ops::cuda {
namespace {

using Kernel = void (*)(const BackwardMaps, const BackwardParams);

Kernel kernel_for(bool packed, bool deterministic) {
  if (packed) return deterministic ? mla_backward_kernel<true, true> : mla_backward_kernel<true, false>;
  return deterministic ? mla_backward_kernel<false, true> : mla_backward_kernel<false, false>;
}

}  // namespace

cudaError_t prepare_backward_kernels() {
  for (const bool packed : {false, true})
    for (const bool deterministic : {false, true}) {
      const cudaError_t error =
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel_for(packed, deterministic)),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, BackwardTraits::kSharedBytes);
      if (error != cudaSuccess) return error;
    }
  return cudaSuccess;
}

cudaError_t launch_backward(const BackwardMaps& maps, const BackwardParams& params, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2]{};
  // Blocks wait for each other: they must all be on the device at once, whatever else runs there.
  attributes[0].id = cudaLaunchAttributeCooperative;
  attributes[0].val.cooperative = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.blocks + params.converting_blocks));
  config.blockDim = dim3(BackwardTraits::kThreads);
  config.dynamicSmemBytes = BackwardTraits::kSharedBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, kernel_for(params.cu_seqlens_q != nullptr, params.deterministic), maps, params);
}

}  // namespace lathe::ops::cuda
