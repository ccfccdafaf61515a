// What crosses every interface: a pointer with its dtype, shape, strides and device. Owns nothing.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace lathe {

inline constexpr int kMaxRank = 4;

enum class DeviceKind : std::uint8_t { cpu, cuda };

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f32;
  DeviceKind device = DeviceKind::cpu;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};
  std::array<std::int64_t, kMaxRank> strides{};  // in elements

  static TensorView contiguous(void* data, DType dtype, std::span<const std::int64_t> shape,
                               DeviceKind device = DeviceKind::cpu);
  static TensorView contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> shape,
                               DeviceKind device = DeviceKind::cpu);

  // False for an optional tensor that was not given.
  explicit operator bool() const { return data != nullptr; }

  std::int64_t numel() const;
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }
  bool is_contiguous() const;
  bool same_shape(const TensorView& other) const;

  // Elements [begin, begin + length) of dimension `dim`.
  TensorView slice(int dim, std::int64_t begin, std::int64_t length) const;
  // Element `index` of dimension `dim`, which is dropped.
  TensorView select(int dim, std::int64_t index) const;
  // Another shape over the same elements; only for contiguous views.
  TensorView reshape(std::initializer_list<std::int64_t> new_shape) const;
  // Dimension `dim` cut into [outer, inner]; works on any strides.
  TensorView split(int dim, std::int64_t inner) const;

  // The typed pointer; throws if T is not the dtype.
  template <typename T>
  T* as() const {
    if (dtype != dtype_of<T>) fail("tensor is {}, expected {}", describe(), name_of(dtype_of<T>));
    return static_cast<T*>(data);
  }

  // "f32 [2, 3]", with strides where they are not the contiguous ones.
  std::string describe() const;
};

struct NamedTensor {
  std::string name;
  TensorView view;
};

// "[2, 3]"
std::string format_shape(std::span<const std::int64_t> shape);

}  // namespace lathe
