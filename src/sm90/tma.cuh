// The copy engine: tensor tiles and plain runs of bytes between global and shared memory.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace lathe::sm90 {

// What lies at this coordinate of a rank-5 map: {column, head, token, panel of 64 columns, batch}.
struct TileCoordinate {
  int head = 0, token = 0, panel = 0, batch = 0;
};

// A box of the map to shared memory; its bytes count on `barrier`. Elements outside of the tensor become 0.
__device__ __forceinline__ void tma_load(uint32_t destination, const CUtensorMap* map, uint32_t barrier,
                                         const TileCoordinate& at) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], "
      "[%2];" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(0), "r"(at.head), "r"(at.token), "r"(at.panel), "r"(at.batch)
      : "memory");
}
// As above, of a rank-3 map: {column, row, matrix}.
__device__ __forceinline__ void tma_load_matrix(uint32_t destination, const CUtensorMap* map, uint32_t barrier,
                                                int column, int row, int matrix) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(destination),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(matrix)
      : "memory");
}
// As tma_load, for data that is read once: it leaves the second-level cache first.
__device__ __forceinline__ void tma_load_once(uint32_t destination, const CUtensorMap* map, uint32_t barrier,
                                              const TileCoordinate& at) {
  constexpr uint64_t kEvictFirst =
      0x12f0000000000000ull;  // the policy that createpolicy.fractional.L2::evict_first makes
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(0), "r"(at.head), "r"(at.token), "r"(at.panel), "r"(at.batch), "l"(kEvictFirst)
      : "memory");
}
// Brings a box to the second-level cache, for a load to come.
__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map, const TileCoordinate& at) {
  asm volatile("cp.async.bulk.prefetch.tensor.5d.L2.global.tile [%0, {%1, %2, %3, %4, %5}];" ::"l"(map), "r"(0),
               "r"(at.head), "r"(at.token), "r"(at.panel), "r"(at.batch)
               : "memory");
}
__device__ __forceinline__ void tma_prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// What threads wrote to shared memory is seen by the copy engine and the tensor cores. Every writer calls it before the
// barrier.
__device__ __forceinline__ void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace lathe::sm90
