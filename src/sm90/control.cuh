// Registers of a warpgroup, launches that overlap, clocks, and a few single instructions.
#pragma once

#include <cstdint>

namespace lathe::sm90 {

// All warps of a warpgroup take part. Needs __launch_bounds__(threads, 1) and roles that are one if/else.
template <int kRegisters>
__device__ __forceinline__ void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Programmatic dependent launch: waits until the kernels before this one in the stream have finished and their writes
// are visible; and lets the next kernel begin.
__device__ __forceinline__ void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ __forceinline__ void let_next_kernel_begin() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// From here on the compiler knows nothing of the value: what follows from it is computed again, not kept in a register.
__device__ __forceinline__ int recompute(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// 2^x to 2 ulp; 0 for -inf.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Two additions to global memory, whose place is a multiple of 8 bytes.
__device__ __forceinline__ void add_float2(float* to, float2 values) {
  asm volatile("red.relaxed.gpu.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(values.x), "f"(values.y) : "memory");
}
// Two floats rounded to bf16; `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace lathe::sm90
