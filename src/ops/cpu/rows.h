// Matrices with contiguous rows, as most ops see their tensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/tensor_view.h"

namespace lathe::ops::cpu {

// The rows of a rank-2 view whose last dimension is contiguous.
template <typename T>
class Rows {
 public:
  explicit Rows(const TensorView& view)
      : data_(view ? view.as<std::remove_const_t<T>>() : nullptr), stride_(view.strides[0]) {}

  // False for an optional tensor that was not given.
  explicit operator bool() const { return data_ != nullptr; }
  T* operator[](std::int64_t row) const { return data_ + row * stride_; }

 private:
  T* data_;
  std::int64_t stride_;
};

// The stride of the rows (the last dimension but one) as matrix products want it: at least the width, also where there
// is one row or none.
inline std::int64_t leading_dimension(const TensorView& matrix) {
  const auto last = static_cast<std::size_t>(matrix.rank - 1);
  const std::int64_t width = std::max<std::int64_t>(matrix.shape[last], 1);
  return matrix.shape[last - 1] <= 1 ? width : matrix.strides[last - 1];
}

}  // namespace lathe::ops::cpu
