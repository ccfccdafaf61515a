#include "checkpoint/elements.h"

#include <cstring>
#include <type_traits>

namespace lathe {
namespace {

template <typename To, typename From>
To convert(From value) {
  if constexpr (std::is_same_v<From, bf16>)
    return static_cast<To>(static_cast<float>(value));
  else if constexpr (std::is_same_v<To, bf16>)
    return bf16(static_cast<float>(value));
  else
    return static_cast<To>(value);
}

template <typename To, typename From>
void convert_all(void* to, const void* from, std::size_t count) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  for (std::size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, in + i * sizeof(From), sizeof(From));
    const To converted = convert<To>(value);
    std::memcpy(out + i * sizeof(To), &converted, sizeof(To));
  }
}

template <typename From>
void convert_from(void* to, DType to_dtype, const void* from, std::size_t count) {
  if (to_dtype == DType::f32) return convert_all<float, From>(to, from, count);
  if (to_dtype == DType::f64) return convert_all<double, From>(to, from, count);
  convert_all<bf16, From>(to, from, count);
}

bool is_floating(DType dtype) { return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::bf16; }

}  // namespace

bool is_convertible(DType from, DType to) { return from == to || (is_floating(from) && is_floating(to)); }

void convert_elements(void* to, DType to_dtype, const void* from, DType from_dtype, std::size_t count) {
  check(is_convertible(from_dtype, to_dtype), "{} elements cannot become {}", name_of(from_dtype), name_of(to_dtype));
  if (count == 0) return;
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, count * size_of(to_dtype));
  } else if (from_dtype == DType::f32) {
    convert_from<float>(to, to_dtype, from, count);
  } else if (from_dtype == DType::f64) {
    convert_from<double>(to, to_dtype, from, count);
  } else {
    convert_from<bf16>(to, to_dtype, from, count);
  }
}

void for_each_run(const TensorView& view, const std::function<void(std::byte*, std::size_t)>& visit) {
  check(view.device == DeviceKind::cpu, "{} is not in the CPU's memory", view.describe());
  if (view.numel() == 0) return;
  // Dimensions [outer, rank) lie in memory as one run.
  std::int64_t run = 1;
  int outer = view.rank;
  while (outer > 0) {
    const auto d = static_cast<std::size_t>(outer - 1);
    if (view.shape[d] != 1 && view.strides[d] != run) break;
    run *= view.shape[d];
    --outer;
  }
  check(outer < view.rank || view.rank == 0, "{} has a strided last dimension", view.describe());
  std::array<std::int64_t, kMaxRank> index{};
  while (true) {
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(outer); ++d) offset += index[d] * view.strides[d];
    visit(static_cast<std::byte*>(view.data) + offset * static_cast<std::int64_t>(size_of(view.dtype)),
          static_cast<std::size_t>(run));
    int dim = outer - 1;
    for (; dim >= 0; --dim) {
      const auto d = static_cast<std::size_t>(dim);
      if (++index[d] < view.shape[d]) break;
      index[d] = 0;
    }
    if (dim < 0) return;
  }
}

}  // namespace lathe
