#include "core/tensor_view.h"

#include <algorithm>

#include "core/checked.h"

namespace lathe {

TensorView TensorView::contiguous(void* data, DType dtype, std::span<const std::int64_t> shape, DeviceKind device) {
  if (shape.size() > kMaxRank) fail("tensor of shape {} has more than {} dimensions", format_shape(shape), kMaxRank);
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.device = device;
  view.rank = static_cast<int>(shape.size());
  std::int64_t stride = 1;
  for (int dim = view.rank - 1; dim >= 0; --dim) {
    const auto d = static_cast<std::size_t>(dim);
    if (shape[d] < 0) fail("tensor of shape {} has a negative dimension", format_shape(shape));
    view.shape[d] = shape[d];
    view.strides[d] = stride;
    stride = checked_mul(stride, std::max<std::int64_t>(shape[d], 1));
  }
  return view;
}

TensorView TensorView::contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> shape,
                                  DeviceKind device) {
  return contiguous(data, dtype, std::span(shape.begin(), shape.size()), device);
}

std::int64_t TensorView::numel() const {
  std::int64_t count = 1;
  for (int dim = 0; dim < rank; ++dim) count *= shape[static_cast<std::size_t>(dim)];
  return count;
}

bool TensorView::is_contiguous() const {
  std::int64_t expected = 1;
  for (int dim = rank - 1; dim >= 0; --dim) {
    const auto d = static_cast<std::size_t>(dim);
    if (shape[d] != 1 && strides[d] != expected) return false;
    expected *= std::max<std::int64_t>(shape[d], 1);
  }
  return true;
}

bool TensorView::same_shape(const TensorView& other) const {
  return rank == other.rank && std::equal(shape.begin(), shape.begin() + rank, other.shape.begin());
}

TensorView TensorView::slice(int dim, std::int64_t begin, std::int64_t length) const {
  const auto d = static_cast<std::size_t>(dim);
  if (dim < 0 || dim >= rank || begin < 0 || length < 0 || begin > shape[d] - length)
    fail("slice [{}, {} + {}) of dimension {} is outside {}", begin, begin, length, dim, describe());
  TensorView view = *this;
  view.shape[d] = length;
  if (data != nullptr)
    view.data = static_cast<std::byte*>(data) + begin * strides[d] * static_cast<std::int64_t>(size_of(dtype));
  return view;
}

TensorView TensorView::select(int dim, std::int64_t index) const {
  TensorView view = slice(dim, index, 1);
  for (int i = dim; i + 1 < rank; ++i) {
    view.shape[static_cast<std::size_t>(i)] = view.shape[static_cast<std::size_t>(i) + 1];
    view.strides[static_cast<std::size_t>(i)] = view.strides[static_cast<std::size_t>(i) + 1];
  }
  --view.rank;
  return view;
}

TensorView TensorView::reshape(std::initializer_list<std::int64_t> new_shape) const {
  if (!is_contiguous()) fail("only a contiguous tensor can be reshaped, not {}", describe());
  const TensorView view = contiguous(data, dtype, new_shape, device);
  if (view.numel() != numel()) fail("{} cannot take the shape {}", describe(), view.describe());
  return view;
}

TensorView TensorView::split(int dim, std::int64_t inner) const {
  const auto d = static_cast<std::size_t>(dim);
  if (dim < 0 || dim >= rank || rank >= kMaxRank || inner <= 0 || shape[d] % inner != 0)
    fail("dimension {} of {} cannot be split by {}", dim, describe(), inner);
  TensorView view = *this;
  for (int i = rank; i > dim + 1; --i) {
    view.shape[static_cast<std::size_t>(i)] = shape[static_cast<std::size_t>(i) - 1];
    view.strides[static_cast<std::size_t>(i)] = strides[static_cast<std::size_t>(i) - 1];
  }
  view.shape[d] = shape[d] / inner;
  view.strides[d] = strides[d] * inner;
  view.shape[d + 1] = inner;
  view.strides[d + 1] = strides[d];
  ++view.rank;
  return view;
}

std::string TensorView::describe() const {
  const auto count = static_cast<std::size_t>(rank);
  std::string text = fmt::format("{} {}", name_of(dtype), format_shape(std::span(shape.data(), count)));
  if (!is_contiguous()) text += " strides " + format_shape(std::span(strides.data(), count));
  return text;
}

std::string format_shape(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

}  // namespace lathe
