#include "ops/cuda/mla_sm90/forward_kernel.cuh"
#include "ops/cuda/mla_sm90/forward_launch.h"

namespace lathe::ops::cuda {
namespace {

using Kernel = void (*)(const ForwardMaps, const ForwardParams);

constexpr Kernel kPlain = mla_forward_kernel<false, 1>;
constexpr Kernel kPacked = mla_forward_kernel<true, 1>;
constexpr Kernel kPaired = mla_forward_kernel<false, 2>;

}  // namespace

cudaError_t prepare_forward_kernels() {
  for (const Kernel kernel : {kPlain, kPacked, kPaired}) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             ForwardTraits::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t launch_forward(const ForwardMaps& maps, const ForwardParams& params, bool packed, int cluster, int blocks,
                           cudaStream_t stream) {
  cudaLaunchAttribute attributes[2]{};
  // The next kernel's start hides under this one's end; the kernel itself waits before it touches memory.
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(ForwardTraits::kThreads);
  config.dynamicSmemBytes = ForwardTraits::kSharedBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, packed ? kPacked : cluster > 1 ? kPaired : kPlain, maps, params);
}

}  // namespace lathe::ops::cuda
