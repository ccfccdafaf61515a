// Thread-block clusters: blocks that share their shared memory.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "sm90/tma.cuh"

namespace lathe::sm90 {

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// A barrier of all threads of all blocks of the cluster, in two halves and whole. Relaxed: nothing that was written
// before is seen behind it.
__device__ __forceinline__ void cluster_barrier_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_barrier_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_barrier_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_sync() {
  cluster_barrier_arrive();
  cluster_barrier_wait();
}
// The address, good for the whole cluster, of the same place in the block of that rank.
__device__ __forceinline__ uint32_t cluster_address(uint32_t shared_address, uint32_t rank) {
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address), "r"(rank));
  return address;
}
// Arrives at a barrier of another block. Says only that this thread has no more products in flight that read: the
// release form would wait for all its writes to global memory.
__device__ __forceinline__ void cluster_arrive_relaxed(uint32_t cluster_address) {
  asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(cluster_address) : "memory");
}
// Arrives at a barrier of another block; what this thread wrote before is seen by who waits with barrier_wait_cluster.
__device__ __forceinline__ void cluster_arrive(uint32_t cluster_address) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(cluster_address) : "memory");
}
__device__ __forceinline__ void barrier_wait_cluster(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again_%=;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void cluster_store_words(uint32_t cluster_address, int a, int b, int c, int d) {
  asm volatile("st.shared::cluster.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(cluster_address), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

// As tma_load, to the same place in all blocks of `ranks` (a bit each); each one's barrier counts the bytes.
__device__ __forceinline__ void tma_load_multicast(uint32_t destination, const CUtensorMap* map, uint32_t barrier,
                                                   const TileCoordinate& at, uint16_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(0), "r"(at.head), "r"(at.token), "r"(at.panel), "r"(at.batch), "h"(ranks)
      : "memory");
}

__device__ __forceinline__ void tma_load_matrix_multicast(uint32_t destination, const CUtensorMap* map,
                                                          uint32_t barrier, int column, int row, int matrix,
                                                          uint16_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(matrix), "h"(ranks)
      : "memory");
}

}  // namespace lathe::sm90
