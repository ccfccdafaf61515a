// Integer arithmetic on sizes. Those that come from files take what throws instead of wrapping around.
#pragma once

#include <concepts>
#include <cstdint>
#include <utility>

#include "core/error.h"

namespace lathe {

template <std::integral T>
T checked_mul(T a, T b) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) refuse("{} x {} does not fit in {} bits", a, b, sizeof(T) * 8);
  return result;
}

template <std::integral T>
T checked_add(T a, T b) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) refuse("{} + {} does not fit in {} bits", a, b, sizeof(T) * 8);
  return result;
}

// `value` as another integer type; throws if it does not fit.
template <std::integral To, std::integral From>
To narrow(From value) {
  if (!std::in_range<To>(value)) refuse("{} does not fit in {} bits", value, sizeof(To) * 8);
  return static_cast<To>(value);
}

// a / b rounded up, of numbers whose sum fits.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace lathe
