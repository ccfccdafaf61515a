// Tensors between a device and the host's memory.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "device/device.h"

namespace lathe {

// The numbers of a small f64 tensor; waits for the stream.
std::vector<double> read_numbers(Device& device, Stream stream, const TensorView& tensor);
// That of a [1] tensor.
double read_scalar(Device& device, Stream stream, const TensorView& tensor);

// Puts the tensor of a name into host memory.
using ReadTensor = std::function<void(const std::string& name, const TensorView& host)>;

// Fills tensors from the host, one after the other: `read` writes into the tensor itself where it lies there, else into
// memory that is copied.
void fill_from_host(Device& device, Stream stream, std::span<const NamedTensor> tensors, const ReadTensor& read);

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
