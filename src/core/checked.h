// Integer arithmetic on sizes that come from files: throws instead of wrapping around.
#pragma once

#include <concepts>
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

}  // namespace lathe
