#include "device/arena.h"

#include <algorithm>

namespace lathe {
namespace {

constexpr std::size_t kAlignment = 64;
// While it grows, a block is an eighth of all before it: what does not fit into the rest of a block is wasted, and so
// is what the last one holds too much.
constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;
constexpr std::size_t kLargestBlock = std::size_t{1} << 30;

}  // namespace

Arena::Arena(Device& device, std::string name) : device_(&device), name_(std::move(name)) {}

TensorView Arena::take(DType dtype, std::initializer_list<std::int64_t> shape) {
  compact();
  TensorView view = TensorView::contiguous(nullptr, dtype, shape, device_->kind());
  const std::size_t bytes = (view.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    std::size_t held = 0;
    for (const Buffer& block : blocks_) held += block.bytes();
    blocks_.emplace_back(*device_, std::max(bytes, std::clamp(held / 8, kSmallestBlock, kLargestBlock)), name_);
  }
  view.data = static_cast<std::byte*>(blocks_[block_].data()) + used_;
  used_ += bytes;
  taken_ += bytes;
  high_water_ = std::max(high_water_, taken_);
  return view;
}

void Arena::release(Mark mark) {
  block_ = mark.block;
  used_ = mark.used;
  taken_ = mark.taken;
}

void Arena::compact() {
  if (taken_ > 0 || blocks_.size() <= 1) return;
  blocks_.clear();
  block_ = used_ = 0;
  blocks_.emplace_back(*device_, high_water_, name_);
}

}  // namespace lathe
