// Tensors between a device and the host's memory.
#pragma once

#include <cstddef>
#include <vector>

#include "device/device.h"

namespace lathe {

// One number of a [1] tensor; waits for the stream.
double read_scalar(Device& device, Stream stream, const TensorView& tensor);

// A tensor's elements in host memory: the tensor itself where it lies there, else a copy.
class HostCopy {
 public:
  HostCopy(Device& device, Stream stream, const TensorView& tensor);
  const TensorView& view() const { return view_; }

 private:
  std::vector<std::byte> memory_;
  TensorView view_;
};

}  // namespace lathe
