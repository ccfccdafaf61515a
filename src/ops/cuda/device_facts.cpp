#include "ops/cuda/device_facts.h"

#include <cuda_runtime.h>

#include "device/cuda_check.h"

namespace lathe::ops::cuda {

const DeviceFacts& current_device() {
  thread_local DeviceFacts facts;
  int device = -1;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  if (device != facts.device) {
    const auto attribute = [&](cudaDeviceAttr which) {
      int value = 0;
      check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
      return value;
    };
    facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    facts.major = attribute(cudaDevAttrComputeCapabilityMajor);
    facts.minor = attribute(cudaDevAttrComputeCapabilityMinor);
    facts.device = device;
  }
  return facts;
}

}  // namespace lathe::ops::cuda
