// CUDA events that measure time, numbered; made when first asked for.
#pragma once

#include <cstddef>
#include <vector>

#include "device/cuda_check.h"

namespace lathe {

class CudaEvents {
 public:
  CudaEvents() = default;
  ~CudaEvents() {
    for (cudaEvent_t event : events_) static_cast<void>(cudaEventDestroy(event));
  }
  CudaEvents(const CudaEvents&) = delete;
  CudaEvents& operator=(const CudaEvents&) = delete;

  cudaEvent_t at(std::size_t index) {
    while (events_.size() <= index) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreate(&event), "cudaEventCreate");
      events_.push_back(event);
    }
    return events_[index];
  }

  // Between two events that were recorded; the device has reached the later one.
  double microseconds(std::size_t first, std::size_t last) {
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, at(first), at(last)), "cudaEventElapsedTime");
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  std::vector<cudaEvent_t> events_;
};

}  // namespace lathe
