// From a position in the list of tiles to a tile, and its way to the warps that work on it.
#pragma once

#include "ops/cuda/mla_sm90/forward_params.h"
#include "sm90/barrier.cuh"
#include "sm90/cluster.cuh"

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

// How a consumer walks through the tile's key blocks. Made by the loader, which has the time.
struct ForwardWalk {
  int blocks = 0;    // that its rows see, at least 1; 0: there are no more tiles
  int unmasked = 0;  // of these, the first ones that all its rows see whole
  int half = 0;      // 1: in the last of these all its rows see the first 64 keys at most
  int skipped = 0;   // further blocks of the tile
};
// The 64 rows of consumer c in the block of rank r of a cluster are the (c * cluster + r)-th of the tile: so all blocks
// of a cluster see as many keys.
template <int kCluster>
__device__ __forceinline__ ForwardWalk walk_of(const ForwardParams& p, const ForwardTile& tile, int part) {
  const int first_row = tile.row + 64 * part;
  const int last = tile.last_key(p, first_row + 63);
  ForwardWalk walk;
  if (tile.blocks == 0) return walk;
  // Alone, a block's two consumers keep step.
  walk.blocks = kCluster == 1 ? tile.blocks : min(max(last / ForwardTraits::kKeys + 1, 1), tile.blocks);
  walk.unmasked = min(max(tile.last_key(p, first_row) + 1, 0) / ForwardTraits::kKeys, walk.blocks);
  walk.half = last < (walk.blocks - 1) * ForwardTraits::kKeys + 64;
  walk.skipped = tile.blocks - walk.blocks;
  return walk;
}

// The tile at index `t` of the list.
template <bool kPacked, int kCluster>
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
    const int section = kPacked ? t / section_tiles : schedule.by_section_tiles.divide(t);
    const int rest = t - section * section_tiles;
    position = schedule.by_section_groups.divide(rest);
    group = section * schedule.section_groups + rest - position * schedule.section_groups;
  } else {
    const int rest = t - long_tiles * schedule.groups;
    const int row = schedule.by_groups.divide(rest);
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
    tile.row = (row_tiles - 1 - position) * kCluster * ForwardTraits::kRows;
    tile.batch = schedule.by_heads.divide(group);
    tile.head = group - tile.batch * p.heads;
    tile.s_q = p.s_q;
    tile.s_k = p.s_k;
  }
  const int last_row = min(tile.row + kCluster * ForwardTraits::kRows, tile.s_q) - 1;
  const int keys = tile.last_key(p, last_row) + 1;
  // Rows that see no key need their zeros too: one block, all masked.
  tile.blocks = max(1, (keys + ForwardTraits::kKeys - 1) / ForwardTraits::kKeys);
  return tile;
}

// A slot in shared memory, written by one thread and read by many: the tile in two parts, of which the second is for
// packed sequences, and a walk for each consumer.
constexpr int kPackedPart = 16, kWalkPart = 32, kWalkBytes = 16;
static_assert(kWalkPart + kWalkBytes * ForwardTraits::kConsumers == ForwardTraits::kTileBytes);

__device__ __forceinline__ void store_words(uint32_t address, int a, int b, int c, int d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
__device__ __forceinline__ void load_words(uint32_t address, int& a, int& b, int& c, int& d) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(address)
               : "memory");
}

// To the slot of each block of the cluster, and a sign to each that it is there.
template <bool kPacked, int kCluster>
__device__ __forceinline__ void hand_out_tile(uint32_t slot, uint32_t full, const ForwardParams& p,
                                              const ForwardTile& tile) {
#pragma unroll
  for (int rank = 0; rank < kCluster; ++rank) {
    const uint32_t to = kCluster == 1 ? slot : sm90::cluster_address(slot, rank);
    const auto store = [&](uint32_t address, int a, int b, int c, int d) {
      if constexpr (kCluster == 1)
        store_words(address, a, b, c, d);
      else
        sm90::cluster_store_words(address, a, b, c, d);
    };
    store(to, tile.row, tile.head, tile.batch, tile.blocks);
    if constexpr (kPacked) store(to + kPackedPart, tile.q_token, tile.k_token, tile.s_q, tile.s_k);
#pragma unroll
    for (int consumer = 0; consumer < ForwardTraits::kConsumers; ++consumer) {
      const ForwardWalk walk = walk_of<kCluster>(p, tile, consumer * kCluster + rank);
      store(to + kWalkPart + kWalkBytes * consumer, walk.blocks, walk.unmasked, walk.half, walk.skipped);
    }
    if constexpr (kCluster == 1)
      sm90::barrier_arrive(full);
    else
      sm90::cluster_arrive(sm90::cluster_address(full, rank));
  }
}
template <bool kPacked>
__device__ __forceinline__ ForwardTile load_tile_slot(uint32_t slot, const ForwardParams& p) {
  ForwardTile tile;
  load_words(slot, tile.row, tile.head, tile.batch, tile.blocks);
  if constexpr (kPacked) {
    load_words(slot + kPackedPart, tile.q_token, tile.k_token, tile.s_q, tile.s_k);
  } else {
    tile.s_q = p.s_q;
    tile.s_k = p.s_k;
  }
  return tile;
}
// The same in all lanes; the shuffles tell ptxas, which then keeps loop counters and descriptors in uniform registers.
__device__ __forceinline__ ForwardWalk load_walk(uint32_t slot, int consumer) {
  ForwardWalk walk;
  load_words(slot + kWalkPart + kWalkBytes * consumer, walk.blocks, walk.unmasked, walk.half, walk.skipped);
  walk.blocks = __shfl_sync(~0u, walk.blocks, 0);

  return walk;
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

  // "Full" ends with the loader's one arrival and its bytes; "empty" with one arrival of each reading warp. Keys and
  // values go to all blocks of a cluster, so the readers of all give them back; its tiles are handed out by rank 0.
  template <bool kPacked, int kCluster>
  __device__ __forceinline__ void init() const {
    constexpr int kWarps = 4;  // of a warpgroup
    constexpr int kLanes = sm90::kAllThreadsArrive ? 32 : 1;
    for (int i = 0; i < Traits::kConsumers; ++i) {
      sm90::barrier_init(q_full + 8 * i, 1);
      sm90::barrier_init(q_empty + 8 * i, kWarps);
    }
    for (int i = 0; i < Traits::kStages; ++i) {
      sm90::barrier_init(k_full + 8 * i, 1);
      sm90::barrier_init(k_empty + 8 * i, kWarps * Traits::kConsumers * kCluster);
      sm90::barrier_init(v_full + 8 * i, 1);
      sm90::barrier_init(v_empty + 8 * i, kWarps * Traits::kConsumers * kCluster);
    }
    for (int i = 0; i < Traits::kTileSlots; ++i) {
      sm90::barrier_init(tile_full + 8 * i, 1);
      // And the loaders of queries and values; beyond rank 0 of keys too.
      constexpr int kReaders = kWarps * kLanes * Traits::kConsumers + 1 + (kPacked ? kLanes : 1);
      sm90::barrier_init(tile_empty + 8 * i, kReaders * kCluster + kCluster - 1);
    }
    sm90::barrier_init(v_tail, 1);
    sm90::barrier_init(started, 1);
    sm90::barrier_init_fence();
  }
};

// One reader's walk through the tiles that are handed out.
template <bool kPacked, int kCluster>
class TileReader {
 public:
  __device__ __forceinline__ TileReader(const ForwardBarriers& barriers, uint32_t slots)
      : barriers_(barriers), slots_(slots) {}

  // Waits for the next tile; it may be read until it is released.
  __device__ __forceinline__ void wait() {
    const uint32_t full = barriers_.tile_full + 8 * position_.stage();
    if constexpr (kCluster == 1)
      sm90::barrier_wait(full, position_.parity());
    else
      sm90::barrier_wait_cluster(full, position_.parity());
  }
  __device__ __forceinline__ ForwardTile read(const ForwardParams& p) const {
    return load_tile_slot<kPacked>(slot(), p);
  }
  __device__ __forceinline__ ForwardWalk walk(int consumer) const { return load_walk(slot(), consumer); }
  // Tiles released so far.
  __device__ __forceinline__ uint32_t count() const { return position_.count; }
  // `arrives` in one thread of a warp, when all its lanes have read; for racecheck in each that has.
  __device__ __forceinline__ void release(bool arrives) {
    const uint32_t empty = barriers_.tile_empty + 8 * position_.stage();
    if (arrives) {
      if constexpr (kCluster == 1)
        sm90::barrier_arrive(empty);
      else
        sm90::cluster_arrive_relaxed(sm90::cluster_address(empty, 0));
    }
    position_.advance();
  }

 private:
  __device__ __forceinline__ uint32_t slot() const { return slots_ + ForwardTraits::kTileBytes * position_.stage(); }

  const ForwardBarriers& barriers_;
  uint32_t slots_;
  sm90::RingPosition<ForwardTraits::kTileSlots> position_;
};

}  // namespace lathe::ops::cuda
