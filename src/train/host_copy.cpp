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

double read_scalar(Device& device, Stream stream, const TensorView& tensor) {
  check(tensor.numel() == 1, "{} is no scalar", tensor.describe());
  const HostCopy copy(device, stream, tensor);
  return *copy.view().as<double>();
}

}  // namespace lathe
