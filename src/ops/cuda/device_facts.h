// What a launch needs to know of the current CUDA device; asked of the driver once a thread.
#pragma once

namespace lathe::ops::cuda {

struct DeviceFacts {
  int device = -1;
  int multiprocessors = 0;
  int major = 0, minor = 0;  // compute capability
};

// Of the calling thread's current device. Throws DeviceError.
const DeviceFacts& current_device();

}  // namespace lathe::ops::cuda
