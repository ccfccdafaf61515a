// From a position in the list of tiles to a tile, and its way to the warps that work on it.
#pragma once

#include "ops/cuda/mla_sm90/forward_params.h"
#include "sm90/barrier.cuh"

namespace lathe::ops::cuda {

struct ForwardTile {
  int row = 0;  // its first row in the sequence
  int head = 0;
  int batch = 0;
  int blocks = 0;                // of keys; 0: there are no more tiles
  int q_token = 0, k_token = 0;  // where the sequence begins, of packed ones
  int s_q = 0, s_k = 0;

  // The last key that a row of the sequence sees; negative: none.
  __device__ __forceinline__ int last_key(const ForwardParams& p, int sequence_row) const {
    return p.causal ? min(sequence_row + s_k - s_q, s_k - 1) : s_k - 1;
  }
};
static_assert(sizeof(ForwardTile) == ForwardTraits::kTileBytes);

// The tile at index `t` of the list. Only one thread calls it: the divisions take registers.
template <bool kPacked>
__device__ __forceinline__ ForwardTile tile_at(const ForwardParams& p, int t) {
  const ForwardSchedule& schedule = p.schedule;
  const int row_tiles = kPacked ? __ldg(p.tile_count) : schedule.row_tiles;
  ForwardTile tile;
  if (t >= row_tiles * schedule.groups) return tile;
  const int long_tiles = row_tiles - static_cast<int>(schedule.short_share * static_cast<float>(row_tiles));
  int group;
  int position;
  if (t < long_tiles * schedule.groups) {
    const int section_tiles = schedule.section_groups * long_tiles;
    const int first_group = t / section_tiles * schedule.section_groups;
    const int width = min(schedule.section_groups, schedule.groups - first_group);
    const int rest = t - first_group * long_tiles;
    position = rest / width;
    group = first_group + rest - position * width;
  } else {
    const int rest = t - long_tiles * schedule.groups;
    const int row = rest / schedule.groups;
    group = rest - row * schedule.groups;
    position = long_tiles + row;
  }
  if constexpr (kPacked) {
    const PackedTile packed = p.tiles[position];
    tile.row = packed.row;
    tile.head = group;
    tile.q_token = __ldg(p.cu_seqlens_q + packed.sequence);
    tile.k_token = __ldg(p.cu_seqlens_k + packed.sequence);
    tile.s_q = __ldg(p.cu_seqlens_q + packed.sequence + 1) - tile.q_token;
    tile.s_k = __ldg(p.cu_seqlens_k + packed.sequence + 1) - tile.k_token;
  } else {
    tile.row = (row_tiles - 1 - position) * ForwardTraits::kRows;
    tile.batch = group / p.heads;
    tile.head = group - tile.batch * p.heads;
    tile.s_q = p.s_q;
    tile.s_k = p.s_k;
  }
  const int last_row = min(tile.row + ForwardTraits::kRows, tile.s_q) - 1;
  const int keys = tile.last_key(p, last_row) + 1;
  // Rows that see no key need their zeros too: one block, all masked.
  tile.blocks = max(1, (keys + ForwardTraits::kKeys - 1) / ForwardTraits::kKeys);
  return tile;
}

// A slot in shared memory, written by one thread and read by many.
template <bool kPacked>
__device__ __forceinline__ void store_tile_slot(uint32_t slot, const ForwardTile& tile) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(slot), "r"(tile.row), "r"(tile.head), "r"(tile.batch),
               "r"(tile.blocks)
               : "memory");
  if constexpr (kPacked)
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(slot + 16), "r"(tile.q_token), "r"(tile.k_token),
                 "r"(tile.s_q), "r"(tile.s_k)
                 : "memory");
}
template <bool kPacked>
__device__ __forceinline__ ForwardTile load_tile_slot(uint32_t slot, const ForwardParams& p) {
  ForwardTile tile;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(tile.row), "=r"(tile.head), "=r"(tile.batch), "=r"(tile.blocks)
               : "r"(slot)
               : "memory");
  if constexpr (kPacked) {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tile.q_token), "=r"(tile.k_token), "=r"(tile.s_q), "=r"(tile.s_k)
                 : "r"(slot + 16)
                 : "memory");
  } else {
    tile.s_q = p.s_q;
    tile.s_k = p.s_k;
  }
  return tile;
}

// Barriers of the kernel, as shared-memory addresses.
struct ForwardBarriers {
  using Traits = ForwardTraits;
  uint32_t q_full, q_empty, k_full, k_empty, v_full, v_empty, tile_full, tile_empty, v_tail, started;

  __device__ __forceinline__ explicit ForwardBarriers(uint32_t base)
      : q_full(base),
        q_empty(q_full + 8 * Traits::kConsumers),
        k_full(q_empty + 8 * Traits::kConsumers),
        k_empty(k_full + 8 * Traits::kStages),
        v_full(k_empty + 8 * Traits::kStages),
        v_empty(v_full + 8 * Traits::kStages),
        tile_full(v_empty + 8 * Traits::kStages),
        tile_empty(tile_full + 8 * Traits::kTileSlots),
        v_tail(tile_empty + 8 * Traits::kTileSlots),
        started(v_tail + 8) {}

  // "Full" ends with the loader's one arrival and its bytes; "empty" with one arrival of each reading warp.
  __device__ __forceinline__ void init() const {
    constexpr int kWarps = 4;  // of a warpgroup
    for (int i = 0; i < Traits::kConsumers; ++i) {
      sm90::barrier_init(q_full + 8 * i, 1);
      sm90::barrier_init(q_empty + 8 * i, kWarps);
    }
    for (int i = 0; i < Traits::kStages; ++i) {
      sm90::barrier_init(k_full + 8 * i, 1);
      sm90::barrier_init(k_empty + 8 * i, kWarps * Traits::kConsumers);
      sm90::barrier_init(v_full + 8 * i, 1);
      sm90::barrier_init(v_empty + 8 * i, kWarps * Traits::kConsumers);
    }
    for (int i = 0; i < Traits::kTileSlots; ++i) {
      sm90::barrier_init(tile_full + 8 * i, 1);
      sm90::barrier_init(tile_empty + 8 * i, kWarps * Traits::kConsumers + 2);  // and the loaders of Q and V
    }
    sm90::barrier_init(v_tail, 1);
    sm90::barrier_init(started, 1);
    sm90::barrier_init_fence();
  }
};

// One reader's walk through the tiles that are handed out.
template <bool kPacked>
class TileReader {
 public:
  __device__ __forceinline__ TileReader(const ForwardBarriers& barriers, uint32_t slots)
      : barriers_(barriers), slots_(slots) {}

  // Waits for the tile that is `ahead` of the current one (0 or 1); it may be read again until it is released.
  __device__ __forceinline__ void wait(uint32_t ahead) {
    const Ring at{position_.count + ahead};
    sm90::barrier_wait(barriers_.tile_full + 8 * at.stage(), at.parity());
  }
  __device__ __forceinline__ ForwardTile read(const ForwardParams& p, uint32_t ahead) const {
    const Ring at{position_.count + ahead};
    return load_tile_slot<kPacked>(slots_ + ForwardTraits::kTileBytes * at.stage(), p);
  }
  // Tiles released so far.
  __device__ __forceinline__ uint32_t count() const { return position_.count; }
  // `arrives` in one thread of a warp, when all its lanes have read.
  __device__ __forceinline__ void release(bool arrives) {
    if (arrives) sm90::barrier_arrive(barriers_.tile_empty + 8 * position_.stage());
    position_.advance();
  }

 private:
  using Ring = sm90::RingPosition<ForwardTraits::kTileSlots>;

  const ForwardBarriers& barriers_;
  uint32_t slots_;
  Ring position_;
};

}  // namespace lathe::ops::cuda
