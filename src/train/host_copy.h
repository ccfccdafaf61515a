// Tensors between a device and the host's memory.
#pragma once

#include <cstddef>
#include <vector>

#include "device/device.h"

namespace lathe {

// The numbers of a small f64 tensor; waits for the stream.
std::vector<double> read_numbers(Device& device, Stream stream, const TensorView& tensor);
// That of a [1] tensor.
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
