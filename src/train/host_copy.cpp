#include "train/host_copy.h"

namespace lathe {

HostCopy::HostCopy(Device& device, Stream stream, const TensorView& tensor) : view_(tensor) {
  if (tensor.device != DeviceKind::cpu) {
    memory_.resize(tensor.bytes());
    view_.data = memory_.data();
    view_.device = DeviceKind::cpu;
    device.copy(view_, tensor, stream);
  }
  device.synchronize(stream);
}

void fill_from_host(Device& device, Stream stream, std::span<const NamedTensor> tensors, const ReadTensor& read) {
  std::vector<std::byte> memory;
  for (const auto& [name, view] : tensors) {
    TensorView host = view;
    if (view.device != DeviceKind::cpu) {
      memory.resize(view.bytes());
      host.data = memory.data();
      host.device = DeviceKind::cpu;
    }
    read(name, host);
    if (view.device != DeviceKind::cpu) device.copy(view, host, stream);
  }
}

std::vector<double> read_numbers(Device& device, Stream stream, const TensorView& tensor) {
  const HostCopy copy(device, stream, tensor);
  const double* numbers = copy.view().as<double>();
  return {numbers, numbers + tensor.numel()};
}

double read_scalar(Device& device, Stream stream, const TensorView& tensor) {
  check(tensor.numel() == 1, "{} is no scalar", tensor.describe());
  return read_numbers(device, stream, tensor).front();
}

}  // namespace lathe
