// Elements between memory and files: dtype conversion, and the contiguous runs of a strided tensor.
#pragma once

#include <cstddef>
#include <functional>

#include "core/tensor_view.h"

namespace lathe {

// Floating types convert into each other, rounding to nearest even (f64 to bf16 by way of f32); integers only stay.
bool is_convertible(DType from, DType to);

// `from` may be unaligned; the two do not overlap. Throws Error unless is_convertible.
void convert_elements(void* to, DType to_dtype, const void* from, DType from_dtype, std::size_t count);

// Calls `visit` with each contiguous run of the view's elements, in index order; all runs are of one length.
// Throws Error if the view is not on the CPU or its last dimension is strided.
void for_each_run(const TensorView& view, const std::function<void(std::byte* data, std::size_t elements)>& visit);

}  // namespace lathe
