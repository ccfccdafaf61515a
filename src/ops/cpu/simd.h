// Arithmetic that vectorizes: short vectors of the processor's width, and exponentials without branches or calls.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace lathe::ops::cpu {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kVectorRegisters = 16;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kVectorRegisters = 16;
#endif

template <typename T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
// kLanes<T> elements; arithmetic and comparison work lane by lane (a GCC and Clang extension).
template <typename T>
using Vector = typename VectorOf<T>::type;

// From and to any address of T.
template <typename T>
inline Vector<T> load(const T* from) {
  Vector<T> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}
template <typename T>
inline void store(T* to, Vector<T> vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

template <typename T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// The largest of the lanes; NaN lanes may or may not count.
template <typename T, int kBytes = kVectorBytes, typename V>
inline T largest_lane(V vector) {
  constexpr int kCount = kBytes / static_cast<int>(sizeof(T));
  if constexpr (kCount <= 4) {
    T largest = vector[0];
    for (int lane = 1; lane < kCount; ++lane) largest = vector[lane] > largest ? vector[lane] : largest;
    return largest;
  } else {
    typedef T Half __attribute__((vector_size(kBytes / 2)));
    Half low;
    Half high;
    std::memcpy(&low, &vector, sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&vector) + sizeof(low), sizeof(high));
    return largest_lane<T, kBytes / 2>(low > high ? low : high);
  }
}

// e^x within 1 ulp (2 where the result is subnormal): 0 for -inf, inf above 88.73, NaN for NaN. Loops over it
// vectorize, and a lane's result is that of a single call.
inline float fast_exp(float x) {
  // Beyond these the result is 0 and inf; a NaN fails both comparisons and stays.
  x = x < -104.0F ? -104.0F : x;
  x = x > 89.0F ? 89.0F : x;
  // n = round(x / ln 2): adding 1.5 * 2^23 leaves n in the low bits of the mantissa.
  constexpr float kRound = 12582912.0F;
  const float shifted = x * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound);
  // ln 2 in two parts; n times the first is exact.
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  // Minimax on |r| <= ln 2 / 2, relative error 3e-9.
  float p = 0.0013814539F;
  p = p * r + 0.008368745F;
  p = p * r + 0.04166839F;
  p = p * r + 0.16666521F;
  p = p * r + 0.49999994F;
  p = r * r * p + r + 1.0F;
  // 2^n as two factors, since 2^128 and 2^-150 are no normal floats. Shifts of unsigned numbers, defined for a NaN's
  // bits.
  const std::int32_t half = exponent >> 1;
  const auto first = std::bit_cast<float>((static_cast<std::uint32_t>(half) + 127U) << 23);
  const auto second = std::bit_cast<float>((static_cast<std::uint32_t>(exponent - half) + 127U) << 23);
  return p * first * second;
}

inline double fast_exp(double x) { return std::exp(x); }

// e^x for x <= 88, half the work of fast_exp: what would be smaller than the least normal float is 0.
inline float fast_exp_flushed(float x) {
  // As in fast_exp; the low bits hold n + 127, which shifted left are 2^n.
  constexpr float kRound = 12582912.0F + 127.0F;
  const float shifted = x * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 0.0013814539F;
  p = p * r + 0.008368745F;
  p = p * r + 0.04166839F;
  p = p * r + 0.16666521F;
  p = p * r + 0.49999994F;
  p = r * r * p + r + 1.0F;
  const float result = p * std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
  return x < -87.0F ? 0.0F : result;
}

inline double fast_exp_flushed(double x) { return std::exp(x); }

}  // namespace lathe::ops::cpu
