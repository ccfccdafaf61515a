// A plain launch whose result is its own: cudaGetLastError() after <<<>>> also returns what the caller left behind.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lathe::ops::cuda {

template <typename... Params, typename... Args>
cudaError_t launch_plain(void (*kernel)(Params...), std::int64_t blocks, int threads, cudaStream_t stream,
                         const Args&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace lathe::ops::cuda
