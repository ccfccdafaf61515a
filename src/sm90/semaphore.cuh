// Counters in global memory by which blocks wait for each other.
#pragma once

#include <cstdint>

namespace lathe::sm90 {

// What was written before the additions that brought the counter to this value is visible.
__device__ __forceinline__ int semaphore_value(const int* semaphore) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(semaphore) : "memory");
  return value;
}
// Returns when the counter is at least `value`.
__device__ __forceinline__ void semaphore_wait(const int* semaphore, int value) {
  while (semaphore_value(semaphore) < value) {
  }
}
__device__ __forceinline__ void semaphore_add(int* semaphore, int value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(semaphore), "r"(value) : "memory");
}

}  // namespace lathe::sm90
