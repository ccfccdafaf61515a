// The weight's gradient in fp32: while a tile is multiplied, the copy engine brings what its gradient was; the
// warpgroups add to it in shared memory, and it leaves while the next tile is multiplied.
#pragma once

#include "ops/cuda/grouped_tiles.cuh"
#include "sm90/bulk.cuh"
#include "sm90/shared_memory.cuh"
#include "sm90/tma.cuh"

namespace lathe::ops::cuda::grouped {

using GradientLayout = Layout<GroupedProduct::weight_gradient>;

__device__ __forceinline__ std::uint32_t first_box(std::uint32_t base, int consumer) {
  return base + GradientLayout::kStaging + consumer * (kBoxes * kBoxBytes);
}

// One thread a warpgroup moves that one's boxes of every tile that has something to add.
__device__ __forceinline__ void move_gradient(const GroupedMaps& maps, const GroupedParams& params, std::uint32_t base,
                                              int consumer) {
  const std::uint32_t boxes = first_box(base, consumer);
  Turns<GroupedProduct::weight_gradient> turns(params);
  const auto next_tile = [&] {
    Tile tile = turns.next();
    while (tile.group >= 0 && (tile.rows <= consumer * kGroupRows || tile.depth == 0)) tile = turns.next();
    return tile;
  };
  const auto load = [&](const Tile& tile, int box) {
    const std::uint32_t loaded = GradientLayout::loaded(base, consumer, box);
    sm90::barrier_arrive_expect(loaded, kBoxBytes);
    sm90::tma_load_matrix(boxes + box * kBoxBytes, &maps.gradient, loaded, tile.n0 + box * kBoxColumns,
                          tile.m0 + consumer * kGroupRows, tile.group);
  };
  std::uint32_t parity = 0;
  Tile tile = next_tile();
  if (tile.group >= 0)
    for (int box = 0; box < kBoxes; ++box) load(tile, box);
  while (tile.group >= 0) {
    const Tile next = next_tile();
#pragma unroll 1
    for (int box = 0; box < kBoxes; ++box) {
      sm90::barrier_wait(GradientLayout::added(base, consumer, box), parity);
      sm90::tma_store_matrix(&maps.gradient, boxes + box * kBoxBytes, tile.n0 + box * kBoxColumns,
                             tile.m0 + consumer * kGroupRows, tile.group);
      sm90::bulk_commit();
      if (box == 0 || next.group < 0) continue;
      sm90::bulk_wait_read<1>();  // the box before has left
      load(next, box - 1);
    }
    if (next.group >= 0) {
      sm90::bulk_wait_read<0>();
      load(next, kBoxes - 1);
    }
    tile = next;
    parity ^= 1;
  }
  sm90::bulk_wait();
}

// Adds a warpgroup's part of a tile to what has been loaded. Of 16 bytes a thread holds half, of rows r and r + 8; the
// copy engine has piece p of a row's 128 bytes at p ^ r % 8. Threads of odd rows take the four pairs of pieces in
// another order: a half-warp's accesses then lie in different banks. Columns outside of the result are dropped by the
// copy engine.
__device__ __forceinline__ void add_to_gradient(const Warpgroup& self, std::uint32_t base, std::uint32_t parity,
                                                const float (&sums)[128]) {
  const int row = self.lane() / 4, quarter = self.lane() % 4;
  const bool odd = row % 2 != 0;
  const std::uint32_t first = first_box(base, self.index) + (self.thread / 32 * 16 + row) * 128 +
                              (quarter / 2 ^ row % 2) * 16 + quarter % 2 * 8;
  std::uint32_t pairs[4];  // where pair j lies, or j ^ 2 for an odd row
#pragma unroll
  for (int j = 0; j < 4; ++j) pairs[j] = first + ((odd ? j ^ 2 : j) * 32 ^ row / 2 * 32);
#pragma unroll
  for (int box = 0; box < kBoxes; ++box) {
    sm90::barrier_wait(GradientLayout::loaded(base, self.index, box), parity);
#pragma unroll
    for (int i = 0; i < 16; i += 2) {  // i / 4 is the pair, i % 4 / 2 the row
      const int even_at = 16 * box + i, odd_at = 16 * box + (i ^ 8);
      const std::uint32_t at = pairs[i / 4] + box * kBoxBytes + i % 4 / 2 * 1024;
      const float2 before = sm90::load_shared_float2(at);
      sm90::store_shared_float2(at, before.x + (odd ? sums[odd_at] : sums[even_at]),
                                before.y + (odd ? sums[odd_at + 1] : sums[even_at + 1]));
    }
    sm90::proxy_fence();
    __syncwarp();
    if (self.lane() == 0) sm90::barrier_arrive(GradientLayout::added(base, self.index, box));
  }
}

}  // namespace lathe::ops::cuda::grouped
