#include "device/device.h"

#include <algorithm>
#include <utility>

#include "core/log.h"
#include "device/work_recorder.h"

namespace lathe {
namespace {

constexpr std::size_t kShownBytes = 50'000;               // less is 0.0 MB: a part of the total only
constexpr std::string_view kCopies = "copies and fills";  // their class for a recorder

void check_copy(const TensorView& to, const TensorView& from) {
  const bool rounds = rounding_copy(to, from);
  if (!to.is_contiguous() || !from.is_contiguous() || (to.dtype != from.dtype && !rounds) || to.numel() != from.numel())
    fail("cannot copy {} to {}: both must be contiguous, of one dtype and size", from.describe(), to.describe());
}

}  // namespace

std::size_t MemoryLedger::add(const std::string& name, std::size_t bytes) {
  auto entry = std::ranges::find(entries_, name, &Entry::name);
  if (entry == entries_.end()) entry = entries_.insert(entry, {name, 0});
  entry->bytes += bytes;
  return static_cast<std::size_t>(entry - entries_.begin());
}

std::string MemoryLedger::describe() const {
  std::string text;
  std::size_t total = 0;
  for (const Entry& entry : entries_) {
    total += entry.bytes;
    if (entry.bytes >= kShownBytes) text += fmt::format("{} {}, ", entry.name, format_bytes(entry.bytes));
  }
  return text + "total " + format_bytes(total);
}

bool rounding_copy(const TensorView& to, const TensorView& from) {
  return to.device == from.device && to.dtype == DType::bf16 && from.dtype == DType::f32;
}

void Device::copy(const TensorView& to, const TensorView& from, Stream stream) {
  check_copy(to, from);
  if (to.numel() == 0) return;
  if (recorder_ == nullptr) return do_copy(to, from, stream);
  const Work work{.bytes = static_cast<double>(to.bytes() + from.bytes())};
  recorder_->record(kCopies, work, [&] { do_copy(to, from, stream); });
}

void Device::fill_zero(const TensorView& tensor, Stream stream) {
  if (!tensor.is_contiguous()) fail("cannot fill {}: not contiguous", tensor.describe());
  if (tensor.numel() == 0) return;
  if (recorder_ == nullptr) return do_fill_zero(tensor, stream);
  const Work work{.bytes = static_cast<double>(tensor.bytes())};
  recorder_->record(kCopies, work, [&] { do_fill_zero(tensor, stream); });
}

Buffer::Buffer(Device& device, std::size_t bytes, const std::string& name) : device_(&device), bytes_(bytes) {
  try {
    data_ = device.allocate(bytes, name);
  } catch (const OutOfMemoryError& error) {
    throw OutOfMemoryError(fmt::format("{}; in use: {}", error.what(), device.memory().describe()));
  }
  entry_ = device.memory().add(name, bytes);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  device_->release(data_, bytes_);
  device_->memory().remove(entry_, bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(entry_, other.entry_);
  return *this;
}

}  // namespace lathe
