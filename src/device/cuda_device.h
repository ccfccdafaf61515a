#pragma once

#include <memory>
#include <string>

#include "device/device.h"

namespace lathe {

// Why this process has no CUDA device: no driver, one too old, no GPU, or one that the kernels are not for; "" if it
// has one. Asked of the driver once. Of several devices it looks at the first.
std::string cuda_device_unavailable();

// The same without a look at the GPU's architecture: for code that works on whatever device is current.
std::string cuda_driver_unavailable();

// Device `index` as the driver counts. Copies and fills return once they are in the stream; copies from and to pageable
// host memory may wait for it.
std::unique_ptr<Device> make_cuda_device(int index);

}  // namespace lathe
