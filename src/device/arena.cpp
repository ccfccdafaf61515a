#include "device/arena.h"

#include <algorithm>

namespace lathe {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMinBlock = std::size_t{64}
                                  << 20;  // what does not fit into the rest of a block is wasted: little

}  // namespace

Arena::Arena(Device& device, std::string name) : device_(&device), name_(std::move(name)) {}

TensorView Arena::take(DType dtype, std::initializer_list<std::int64_t> shape) {
  TensorView view = TensorView::contiguous(nullptr, dtype, shape, device_->kind());
  const std::size_t bytes = (view.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) blocks_.emplace_back(*device_, std::max(bytes, kMinBlock), name_);
  view.data = static_cast<std::byte*>(blocks_[block_].data()) + used_;
  used_ += bytes;
  std::size_t total = used_;
  for (std::size_t i = 0; i < block_; ++i) total += blocks_[i].bytes();
  high_water_ = std::max(high_water_, total);
  return view;
}

void Arena::release(Mark mark) {
  block_ = mark.block;
  used_ = mark.used;
}

}  // namespace lathe
