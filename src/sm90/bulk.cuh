// Runs of bytes and tensor tiles that leave shared memory, or come, without the threads: bulk copies. Those that write
// global memory belong to the bulk group that the issuing thread commits next. Addresses and sizes are multiples of 16.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "sm90/tma.cuh"

namespace lathe::sm90 {

// Global to shared memory; the bytes count on `barrier`.
__device__ __forceinline__ void bulk_load(uint32_t destination, const void* source, int bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
      "l"(source), "r"(bytes), "r"(barrier)
      : "memory");
}
// As above, for data that is not read again: it leaves the second-level cache first.
__device__ __forceinline__ void bulk_load_once(uint32_t destination, const void* source, int bytes, uint32_t barrier) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(destination),
      "l"(source), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void bulk_store(void* destination, uint32_t source, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(destination), "r"(source), "r"(bytes)
               : "memory");
}
// Adds fp32 to fp32. Each element is added to atomically; the order is not defined.
__device__ __forceinline__ void bulk_add(float* destination, uint32_t source, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(destination),
               "r"(source), "r"(bytes)
               : "memory");
}
// A box of the map from shared memory; what lies outside of the tensor is not written.
__device__ __forceinline__ void tma_store(const CUtensorMap* map, uint32_t source, const TileCoordinate& at) {
  asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(map),
               "r"(source), "r"(0), "r"(at.head), "r"(at.token), "r"(at.panel), "r"(at.batch)
               : "memory");
}
// As above, of a rank-3 map: {column, row, matrix}.
__device__ __forceinline__ void tma_store_matrix(const CUtensorMap* map, uint32_t source, int column, int row,
                                                 int matrix) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(source), "r"(column), "r"(row), "r"(matrix)
               : "memory");
}

__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Returns when all but the newest kPending of this thread's groups have read their shared memory: it may be written
// again.
template <int kPending = 0>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
// Returns when this thread's groups have written global memory.
__device__ __forceinline__ void bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// As proxy_fence, for global memory and in both directions: between threads' accesses, or what they know of another
// block's, and bulk copies. Without .global it also waits for all of the thread's memory traffic: 5% of the backward,
// 20% where additions have an order.
__device__ __forceinline__ void proxy_fence_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

}  // namespace lathe::sm90
