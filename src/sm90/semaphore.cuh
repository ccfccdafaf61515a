// Counters in global memory by which blocks wait for each other.
#pragma once

#include <cstdint>

namespace lathe::sm90 {

// The counter; what was written before the additions that brought it there is visible.
__device__ __forceinline__ int semaphore_read(const int* semaphore) {
  int now;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(semaphore) : "memory");
  return now;
}
// Returns when it is at least `value`.
__device__ __forceinline__ void semaphore_wait(const int* semaphore, int value) {
  while (semaphore_read(semaphore) < value) continue;
}
__device__ __forceinline__ void semaphore_add(int* semaphore, int value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(semaphore), "r"(value) : "memory");
}

}  // namespace lathe::sm90
