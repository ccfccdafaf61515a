// Every result of the CUDA runtime passes through check_cuda.
#pragma once

#include <cuda_runtime_api.h>

namespace lathe {

// Throws DeviceError naming the call: "cudaMalloc: out of memory (cudaErrorMemoryAllocation)". The runtime's record of
// the error is cleared, so that the next check does not report it again.
[[noreturn]] void throw_cuda_error(cudaError_t result, const char* call);

inline void check_cuda(cudaError_t result, const char* call) {
  if (result != cudaSuccess) [[unlikely]]
    throw_cuda_error(result, call);
}

}  // namespace lathe
