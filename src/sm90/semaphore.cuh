// Counters in global memory by which blocks wait for each other.
#pragma once

#include <cstdint>

namespace lathe::sm90 {

// Returns when the counter is at least `value`; what was written before the additions that brought it there is visible.
__device__ __forceinline__ void semaphore_wait(const int* semaphore, int value) {
  int now;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(semaphore) : "memory");
  } while (now < value);
}
__device__ __forceinline__ void semaphore_add(int* semaphore, int value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(semaphore), "r"(value) : "memory");
}

}  // namespace lathe::sm90
