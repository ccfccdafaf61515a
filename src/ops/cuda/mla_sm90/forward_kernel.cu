#include "ops/cuda/mla_sm90/forward_kernel.cuh"
#include "ops/cuda/mla_sm90/forward_launch.h"

namespace lathe::ops::cuda {
namespace {

using Kernel = void (*)(const ForwardMaps, const ForwardParams);

Kernel kernel_for(bool packed) { return packed ? mla_forward_kernel<true> : mla_forward_kernel<false>; }

}  // namespace

cudaError_t prepare_forward_kernels() {
  for (const bool packed : {false, true}) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel_for(packed)),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, ForwardTraits::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t launch_forward(const ForwardMaps& maps, const ForwardParams& params, bool packed, int blocks,
                           cudaStream_t stream) {
  // The next kernel's start hides under this one's end; the kernel itself waits before it touches memory.
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(ForwardTraits::kThreads);
  config.dynamicSmemBytes = ForwardTraits::kSharedBytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel_for(packed), maps, params);
}

}  // namespace lathe::ops::cuda
