// Warpgroup matrix products: ordering, and descriptors of operands in shared memory.
#pragma once

#include <cstdint>

#include "sm90/wgmma_instructions.cuh"

namespace lathe::sm90 {

// Registers and shared memory written so far are seen by the products issued after it.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Returns when at most kPending of the committed groups are in flight.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The compiler sees an asynchronous product's registers as written when it is issued. Pinned before the fence and after
// the wait, no read or write of them moves across.
template <int kSize>
__device__ __forceinline__ void pin(float (&registers)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kSize>
__device__ __forceinline__ void pin(uint32_t (&registers)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

// Operands are panels: 64 columns of bf16 (128 bytes a row), 128-byte swizzle, 1024-byte aligned, as a TMA box of 64
// columns leaves them. Descriptor (PTX ISA, "Matrix Descriptor"): address / 16 in bits 0-13, leading offset / 16 in
// 16-29, stride offset / 16 in 32-45 (1024 bytes: 8 rows), 1 = 128-byte swizzle in 62-63.
__device__ __forceinline__ uint64_t descriptor(uint32_t shared_address, uint32_t leading_bytes) {
  return static_cast<uint64_t>((shared_address & 0x3ffff) >> 4) | (static_cast<uint64_t>(leading_bytes >> 4) << 16) |
         (static_cast<uint64_t>(1024 >> 4) << 32) | (1ull << 62);
}
// K runs along the panel's columns: 32 bytes a step of 16, and the next panel after 4 steps.
__device__ __forceinline__ uint64_t descriptor_k_major(uint32_t shared_address) {
  return descriptor(shared_address, 16);
}
// M or N runs along the columns, over panels that lie panel_bytes apart; K runs along the rows: 2048 bytes a step
// of 16.
__device__ __forceinline__ uint64_t descriptor_mn_major(uint32_t shared_address, uint32_t panel_bytes) {
  return descriptor(shared_address, panel_bytes);
}
// A descriptor `bytes` further on.
__device__ __forceinline__ uint64_t advance(uint64_t descriptor, uint32_t bytes) { return descriptor + (bytes >> 4); }

}  // namespace lathe::sm90
