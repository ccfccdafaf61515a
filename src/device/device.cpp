#include "device/device.h"

#include <utility>

namespace lathe {

void check_copy(const TensorView& to, const TensorView& from) {
  if (!to.is_contiguous() || !from.is_contiguous() || to.dtype != from.dtype || to.numel() != from.numel())
    fail("cannot copy {} to {}: both must be contiguous, of one dtype and size", from.describe(), to.describe());
}

void check_fill(const TensorView& tensor) {
  if (!tensor.is_contiguous()) fail("cannot fill {}: not contiguous", tensor.describe());
}

Buffer::Buffer(Device& device, std::size_t bytes, const std::string& name)
    : device_(&device), data_(device.allocate(bytes, name)), bytes_(bytes) {}

Buffer::~Buffer() {
  if (data_ != nullptr) device_->release(data_, bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace lathe
