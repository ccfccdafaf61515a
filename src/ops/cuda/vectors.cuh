// Loads and stores of several elements at once, computed with as fp32.
#pragma once

#include <cuda_bf16.h>

#include <type_traits>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return __float2bfloat16_rn(value);
}

template <typename T, int N>
struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack {
  T values[N];
};

template <int N, typename T>
__device__ __forceinline__ Pack<std::remove_const_t<T>, N> load_pack(T* from) {
  return *reinterpret_cast<const Pack<std::remove_const_t<T>, N>*>(from);
}

template <int N, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  const Pack<T, N> pack = load_pack<N>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.values[i]);
}

template <int N, typename T>
__device__ __forceinline__ void store(const float (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.values[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Calls body.template operator()<T>() with the type of the elements.
template <typename Body>
auto with_element(Element element, Body&& body) {
  return element == Element::f32 ? body.template operator()<float>() : body.template operator()<__nv_bfloat16>();
}

// Calls body.template operator()<T, N>(): N elements are 16 bytes, or one where rows are not made of these.
template <typename Body>
auto with_packs(Element element, bool wide, Body&& body) {
  return with_element(element, [&]<typename T>() {
    return wide ? body.template operator()<T, 16 / static_cast<int>(sizeof(T))>() : body.template operator()<T, 1>();
  });
}

// Threads for a row of `packs`: whole warps, at most `most`.
inline int threads_for(std::int64_t packs, int most) {
  const std::int64_t warps = (packs + 31) / 32;
  return static_cast<int>(warps < 1 ? 1 : warps * 32 > most ? most / 32 : warps) * 32;
}

}  // namespace lathe::ops::cuda
