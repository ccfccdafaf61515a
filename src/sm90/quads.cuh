// Exchanges between the four lanes that hold a row of a product's fragments.
#pragma once

#include <cstdint>

namespace lathe::sm90 {

// words[r][i] of lane t of a quad -> words[r][t] of lane i; two at a time, so that one's shuffles hide the other's.
__device__ __forceinline__ void transpose_quads(uint32_t (&words)[2][4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
        // The lower lane gives its upper word for the upper lane's lower one.
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t& low = words[r][i];
        uint32_t& high = words[r][i + distance];
        const uint32_t other = __shfl_xor_sync(~0u, upper ? low : high, distance);
        (upper ? low : high) = other;
      }
    }
  }
}

}  // namespace lathe::sm90
