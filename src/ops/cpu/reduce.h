// Sums and maxima over arrays with the partial results in registers, where an `omp simd` reduction keeps them in
// memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ops/cpu/simd.h"

namespace lathe::ops::cpu {

// What a term is called with: the elements from `index` on as a vector of kLanes<A>, ...
template <typename A>
struct LanesAt {
  std::int64_t index;

  template <typename T>
  Vector<A> operator()(const T* x) const {
    if constexpr (std::is_same_v<T, A>) {
      return load(x + index);
    } else {
      typedef T Narrow __attribute__((vector_size(kLanes<A> * sizeof(T))));
      Narrow narrow;
      std::memcpy(&narrow, x + index, sizeof(narrow));
      return __builtin_convertvector(narrow, Vector<A>);
    }
  }
};

// ... or one element.
template <typename A>
struct ElementAt {
  std::int64_t index;

  template <typename T>
  A operator()(const T* x) const {
    return static_cast<A>(x[index]);
  }
};

// The sum over i in [0, count) of a term made from elements of arrays, computed in A, in an order that depends on
// `count` alone: sum_over<float>(n, [=](auto at) { return at(x) * at(y); }).
template <typename A, typename Term>
A sum_over(std::int64_t count, Term&& term) {
  constexpr std::int64_t kStep = kLanes<A>;
  Vector<A> sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kStep <= count; i += 4 * kStep) {
    sums[0] += term(LanesAt<A>{i});
    sums[1] += term(LanesAt<A>{i + kStep});
    sums[2] += term(LanesAt<A>{i + 2 * kStep});
    sums[3] += term(LanesAt<A>{i + 3 * kStep});
  }
  for (; i + kStep <= count; i += kStep) sums[0] += term(LanesAt<A>{i});
  const Vector<A> lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  A total = 0;
  for (int lane = 0; lane < kLanes<A>; ++lane) total += lanes[lane];
  for (; i < count; ++i) total += term(ElementAt<A>{i});
  return total;
}

// The largest of x, NaN passed over; -infinity if there is none.
template <typename T>
T max_of(const T* x, std::int64_t count) {
  constexpr std::int64_t kStep = kLanes<T>;
  T largest = -std::numeric_limits<T>::infinity();
  Vector<T> lanes = Vector<T>{} + largest;
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const Vector<T> values = load(x + i);
    lanes = values > lanes ? values : lanes;
  }
  for (int lane = 0; lane < kLanes<T>; ++lane) largest = lanes[lane] > largest ? lanes[lane] : largest;
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

}  // namespace lathe::ops::cpu
