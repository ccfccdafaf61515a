// What kernels are given of a tensor. Read by .cu files: no header of `core` here, since nvcc cannot compile fmt.
#pragma once

#include <cstdint>

namespace lathe::ops::cuda {

enum class Element : std::uint8_t { f32, bf16 };

// Rows of contiguous elements, `stride` elements apart; data is null where an optional tensor was not given.
struct Matrix {
  void* data = nullptr;
  std::int64_t stride = 0;

  template <typename T>
#ifdef __CUDACC__
  __host__ __device__
#endif
      T*
      row(std::int64_t index) const {
    return static_cast<T*>(data) + index * stride;
  }
};

}  // namespace lathe::ops::cuda
