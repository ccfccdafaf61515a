// The forward on Hopper. One persistent block an SM: warpgroup 0 loads (a warp each for keys and tiles, values,
// queries), warpgroups 1 and 2 compute 64 query rows each. For a block of 128 keys a consumer has the scores of this
// block and the output of the last one in flight together (FlashAttention-3, arXiv:2407.08608); the two consumers take
// turns to issue, so that one's softmax runs under the other's products. In a cluster of two, the blocks share the keys
// and values of a tile of 256 queries: each loads half of them for both.
#pragma once

#include "ops/cuda/mla_sm90/forward_softmax.cuh"
#include "ops/cuda/mla_sm90/forward_store.cuh"
#include "ops/cuda/mla_sm90/forward_tiles.cuh"
#include "sm90/barrier.cuh"
#include "sm90/cluster.cuh"
#include "sm90/control.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace lathe::ops::cuda {

template <int kCluster>
__device__ __forceinline__ int block_rank() {
  return kCluster == 1 ? 0 : static_cast<int>(sm90::cluster_rank());
}
constexpr uint16_t kAllRanks = 3;

// What a block loads of the keys: all of them, or in a pair a panel of the nope part and half of the rope part's
// tokens.
template <int kCluster>
struct KeyPart {
  static_assert(kCluster == 1 || kCluster == ForwardTraits::kNopePanels);
  sm90::TileCoordinate nope, rope;
  __device__ __forceinline__ KeyPart(const ForwardTile& tile, int rank)
      : nope{tile.head, tile.k_token, rank, tile.batch},
        rope{0, tile.k_token + rank * (ForwardTraits::kKeys / kCluster), 0, tile.batch} {}
  __device__ __forceinline__ void advance() {
    nope.token += ForwardTraits::kKeys;
    rope.token += ForwardTraits::kKeys;
  }
};

template <int kCluster>
__device__ __forceinline__ void load_keys(const ForwardMaps& maps, uint32_t keys, uint32_t full, int rank,
                                          const KeyPart<kCluster>& part) {
  using Traits = ForwardTraits;
  const uint32_t rope_keys = keys + Traits::kNopePanels * Traits::kKeyPanel;
  sm90::barrier_arrive_expect(full, Traits::kKBytes);
  if constexpr (kCluster == 1) {
    sm90::tma_load(keys, &maps.k_nope, full, part.nope);
    sm90::tma_load(rope_keys, &maps.k_pe, full, part.rope);
  } else {
    sm90::tma_load_multicast(keys + rank * Traits::kKeyPanel, &maps.k_nope, full, part.nope, kAllRanks);
    sm90::tma_load_multicast(rope_keys + rank * (Traits::kKeyPanel / kCluster), &maps.k_pe, full, part.rope, kAllRanks);
  }
}

// Hands out tiles and loads keys; runs in one thread.
template <bool kPacked, int kCluster>
__device__ __forceinline__ void load_tiles_and_keys(const ForwardMaps& maps, const ForwardParams& p, uint32_t shared,
                                                    const ForwardBarriers& barriers) {
  using Traits = ForwardTraits;
  const bool timed = p.clock_counters != nullptr && blockIdx.x == 0;
  const std::int64_t start_cycles = timed ? clock64() : 0;
  const std::uint64_t start_nanoseconds = timed ? sm90::nanoseconds() : 0;
  const int rank = block_rank<kCluster>();
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  TileReader<kPacked, kCluster> tiles(barriers, shared + Traits::kOffsetTiles);  // of rank 1
  sm90::RingPosition<Traits::kTileSlots> slot;                                   // of rank 0
  sm90::RingPosition<Traits::kStages> stage;
  bool first = true;
  int index = static_cast<int>(blockIdx.x) / kCluster;
  if constexpr (kPacked) sm90::wait_for_previous_kernel();
  while (true) {
    ForwardTile tile;
    if (rank == 0) {
      sm90::barrier_wait(barriers.tile_empty + 8 * slot.stage(), slot.parity() ^ 1);
      tile = tile_at<kPacked, kCluster>(p, index);
      hand_out_tile<kPacked, kCluster>(shared + Traits::kOffsetTiles + Traits::kTileBytes * slot.stage(),
                                       barriers.tile_full + 8 * slot.stage(), p, tile);
      slot.advance();
    } else {
      tiles.wait();
      tile = tiles.read(p);
      tiles.release(true);
    }
    KeyPart<kCluster> part(tile, rank);
    if (!kPacked && first) {
      sm90::tma_prefetch(&maps.k_nope, part.nope);
      sm90::tma_prefetch(&maps.k_pe, part.rope);
      sm90::wait_for_previous_kernel();
    }
    if (tile.blocks == 0) break;
#pragma unroll 1
    for (int block = 0; block < tile.blocks; ++block) {
      sm90::barrier_wait(barriers.k_empty + 8 * stage.stage(), stage.parity() ^ 1);
      const uint32_t full = barriers.k_full + 8 * stage.stage();
      load_keys<kCluster>(maps, shared + Traits::kOffsetK + Traits::kKBytes * stage.stage(), full, rank, part);
      // At the start the memory is asked for what is needed first: all else waits for the first keys.
      if (first) {
        sm90::barrier_wait(full, 0);
        sm90::barrier_arrive(barriers.started);
        first = false;
      }
      part.advance();
      stage.advance();
    }
    // Taken as late as possible, when all loads of this tile are on their way: a tile taken early waits behind a long
    // one.
    if (rank == 0) index = atomicAdd(&p.counters->next_tile, 1) + clusters;
  }
  sm90::let_next_kernel_begin();
  if (rank != 0) return;
  if (timed) {
    p.clock_counters[0] += static_cast<std::uint64_t>(clock64() - start_cycles);
    p.clock_counters[1] += sm90::nanoseconds() - start_nanoseconds;
  }
  // The last one leaves the counters as it found them.
  if (atomicAdd(&p.counters->finished, 1) == clusters - 1) {
    p.counters->next_tile = 0;
    p.counters->finished = 0;
  }
}

// Runs in one thread, of a warp of its own: behind the keys the first queries came 1.4 us later.
template <bool kPacked, int kCluster>
__device__ __forceinline__ void load_queries(const ForwardMaps& maps, const ForwardParams& p, uint32_t shared,
                                             const ForwardBarriers& barriers) {
  using Traits = ForwardTraits;
  const int rank = block_rank<kCluster>();
  TileReader<kPacked, kCluster> tiles(barriers, shared + Traits::kOffsetTiles);
  uint32_t parity = 1;
  bool first = true;
  while (true) {
    tiles.wait();
    const ForwardTile tile = tiles.read(p);
    tiles.release(true);
    sm90::TileCoordinate at{tile.head, tile.q_token + tile.row + 64 * rank, 0, tile.batch};
    if (first) {
      if constexpr (!kPacked) {
        sm90::tma_prefetch(&maps.q_nope, at);
        sm90::tma_prefetch(&maps.q_pe, at);
        sm90::TileCoordinate second = at;
        second.token += 64 * kCluster;
        sm90::tma_prefetch(&maps.q_nope, second);
        sm90::tma_prefetch(&maps.q_pe, second);
      }
      sm90::wait_for_previous_kernel();
      first = false;
    }
    if (tile.blocks == 0) break;
#pragma unroll 1
    for (int consumer = 0; consumer < Traits::kConsumers; ++consumer, at.token += 64 * kCluster) {
      sm90::barrier_wait(barriers.q_empty + 8 * consumer, parity);
      const uint32_t full = barriers.q_full + 8 * consumer;
      const uint32_t queries = shared + Traits::kQBytes * consumer;
      sm90::barrier_arrive_expect(full, Traits::kQBytes);
      sm90::tma_load_once(queries, &maps.q_nope, full, at);
      sm90::tma_load_once(queries + Traits::kNopePanels * Traits::kQPanel, &maps.q_pe, full, at);
    }
    parity ^= 1;
  }
}

// Zeroes the rows from `first` on: beyond the end of a packed sequence the copy engine brings the next one's values,
// which would meet probabilities of 0, but 0 times NaN is NaN. All lanes of a warp take part.
__device__ __forceinline__ void zero_value_rows(uint32_t values, int first) {
  using Traits = ForwardTraits;
  const int lane = static_cast<int>(threadIdx.x & 31);
  for (int row = first + lane / 8; row < Traits::kKeys; row += 4)
    for (int panel = 0; panel < Traits::kValuePanels; ++panel) {
      const uint32_t at = values + panel * Traits::kKeyPanel + row * Traits::kRowBytes + lane % 8 * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
    }
  sm90::proxy_fence();
  __syncwarp();
}

// Runs in one thread, or in a whole warp where sequences are packed.
template <bool kPacked, int kCluster>
__device__ __forceinline__ void load_values(const ForwardMaps& maps, const ForwardParams& p, uint32_t shared,
                                            const ForwardBarriers& barriers) {
  using Traits = ForwardTraits;
  const bool leader = !kPacked || (threadIdx.x & 31) == 0;
  const int rank = block_rank<kCluster>();
  TileReader<kPacked, kCluster> tiles(barriers, shared + Traits::kOffsetTiles);
  sm90::RingPosition<Traits::kStages> stage;
  uint32_t tail_parity = 0;
  bool first = true;
  while (true) {
    tiles.wait();
    const ForwardTile tile = tiles.read(p);
    if constexpr (kPacked) __syncwarp();
    tiles.release(sm90::kAllThreadsArrive || leader);
    sm90::TileCoordinate at{tile.head, tile.k_token, rank, tile.batch};  // of a pair each loads a panel
    if (first) {
      if constexpr (!kPacked) sm90::tma_prefetch(&maps.v, at);
      sm90::wait_for_previous_kernel();
    }
    if (tile.blocks == 0) break;
    if (first) sm90::barrier_wait(barriers.started, 0);
    first = false;
#pragma unroll 1
    for (int block = 0; block < tile.blocks; ++block) {
      sm90::barrier_wait(barriers.v_empty + 8 * stage.stage(), stage.parity() ^ 1);
      const uint32_t full = barriers.v_full + 8 * stage.stage();
      const uint32_t values = shared + Traits::kOffsetV + Traits::kVBytes * stage.stage();
      const int valid = tile.s_k - block * Traits::kKeys;
      if (kPacked && valid < Traits::kKeys) {
        if (leader) {
          sm90::barrier_arrive_expect(barriers.v_tail, Traits::kVBytes);
          sm90::tma_load(values, &maps.v, barriers.v_tail, at);
        }
        sm90::barrier_wait(barriers.v_tail, tail_parity);
        tail_parity ^= 1;
        zero_value_rows(values, valid);
        if (leader) sm90::barrier_arrive(full);
      } else if (leader) {
        sm90::barrier_arrive_expect(full, Traits::kVBytes);
        if constexpr (kCluster == 1) {
          sm90::tma_load(values, &maps.v, full, at);
        } else {
          sm90::tma_load_multicast(values + rank * Traits::kKeyPanel, &maps.v, full, at, kAllRanks);
        }
      }
      at.token += Traits::kKeys;
      stage.advance();
    }
  }
}

// A warpgroup that computes 64 rows of each tile.
template <bool kPacked, int kCluster>
class ForwardConsumer {
 public:
  using Traits = ForwardTraits;

  __device__ __forceinline__ ForwardConsumer(const ForwardParams& p, uint32_t shared, const ForwardBarriers& barriers,
                                             int consumer)
      : p_(p),
        barriers_(barriers),
        tiles_(barriers, shared + Traits::kOffsetTiles),
        queries_(sm90::descriptor_k_major(shared + Traits::kQBytes * consumer)),
        keys_(sm90::descriptor_k_major(shared + Traits::kOffsetK)),
        values_(sm90::descriptor_mn_major(shared + Traits::kOffsetV, Traits::kKeyPanel)),
        q_full_(barriers.q_full + 8 * consumer),
        q_empty_(barriers.q_empty + 8 * consumer),
        turn_(kFirstTurn + consumer),
        next_turn_(kFirstTurn + (consumer + 1) % Traits::kConsumers),
        consumer_(consumer) {
    if (consumer == Traits::kConsumers - 1) sm90::named_barrier_arrive(kFirstTurn, kTurnThreads);
#pragma unroll
    for (float& x : out_) x = 0;
  }

  __device__ __forceinline__ void run() {
    while (true) {
      tiles_.wait();
      walk_ = tiles_.walk(consumer_);
      if (walk_.blocks == 0) break;
      first_block();
      int block = 1;
      // The masked step has a body of its own: an `if` inside of the loop costs 3%.
      for (; block < walk_.unmasked; ++block) step<Traits::kKeys, false>(block);
      for (; block < walk_.blocks - walk_.half; ++block) step<Traits::kKeys, true>(block);
      if (block < walk_.blocks) step<64, true>(block);
      if constexpr (kCluster > 1)
        for (int i = 0; i < walk_.skipped; ++i) {
          sm90::named_barrier_sync(turn_, kTurnThreads);
          sm90::named_barrier_arrive(next_turn_, kTurnThreads);
        }
      // A path for each width: a product that runs on a condition is serialised by ptxas (C7519).
      if (walk_.half != 0)
        last_output<64>();
      else
        last_output<Traits::kKeys>();
      if constexpr (kCluster > 1) skip_blocks();
      const ForwardTile tile = tiles_.read(p_);
      __syncwarp();
      tiles_.release(sm90::kAllThreadsArrive || lane() == 0);
      store_rows(p_, tile, tile.row + my_row(), out_, rows_);
    }
  }

 private:
  using Ring = sm90::RingPosition<Traits::kStages>;

  static constexpr int kFirstTurn = 1;  // named barrier of the first consumer; 0 is __syncthreads
  static constexpr int kTurnThreads = 128 * Traits::kConsumers;

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x & 31); }

  __device__ __forceinline__ void release(uint32_t barrier) {
    if (lane() == 0) sm90::barrier_arrive(barrier);
  }
  // To the loaders of all blocks of the cluster.
  __device__ __forceinline__ void release_everywhere(uint32_t barrier) {
    if constexpr (kCluster == 1)
      release(barrier);
    else if (lane() < kCluster)
      sm90::cluster_arrive_relaxed(sm90::cluster_address(barrier, static_cast<uint32_t>(lane())));
  }
  // The stage of the newest keys; the values that are multiplied beside are of the block before, in the other stage of
  // their own ring.
  __device__ __forceinline__ uint32_t keys_stage() const { return k_.stage(); }
  static __device__ __forceinline__ uint32_t values_stage(uint32_t keys_stage) {
    static_assert(Traits::kStages == 2);
    return keys_stage ^ 1;
  }
  __device__ __forceinline__ void wait_keys(uint32_t stage) {
    sm90::barrier_wait(barriers_.k_full + 8 * stage, k_.parity());
  }
  __device__ __forceinline__ void wait_values(uint32_t stage) {
    sm90::barrier_wait(barriers_.v_full + 8 * stage, Ring{k_.count - 1}.parity());
  }
  __device__ __forceinline__ void release_keys(uint32_t stage) {
    release_everywhere(barriers_.k_empty + 8 * stage);
    k_.advance();
  }
  __device__ __forceinline__ void release_values(uint32_t stage) { release_everywhere(barriers_.v_empty + 8 * stage); }

  // scores = Q K^T for the first kColumns keys of the block.
  template <int kColumns>
  __device__ __forceinline__ void issue_scores(uint32_t stage) {
    const uint64_t keys = sm90::advance(keys_, Traits::kKBytes * stage);
#pragma unroll
    for (int k = 0; k < (Traits::kNope + Traits::kRope) / 16; ++k) {
      const uint64_t a = sm90::advance(queries_, k / 4 * Traits::kQPanel + k % 4 * 32);
      const uint64_t b = sm90::advance(keys, k / 4 * Traits::kKeyPanel + k % 4 * 32);
      if constexpr (kColumns == 64)
        sm90::wgmma_ss_n64<0, 0>(scores_, a, b, k > 0);
      else
        sm90::wgmma_ss_n128<0, 0>(scores_, a, b, k > 0);
    }
    sm90::wgmma_commit();
  }
  // output (+)= P V for the first kColumns keys of the block.
  template <int kColumns>
  __device__ __forceinline__ void issue_output(uint32_t stage, bool accumulate) {
    const uint64_t values = sm90::advance(values_, Traits::kVBytes * stage);
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k)
      sm90::wgmma_rs_n128<1>(out_, &probabilities_[4 * k], sm90::advance(values, 2048 * k), k > 0 || accumulate);
    sm90::wgmma_commit();
  }

  // What this thread's rows see of a block of the current tile. From the tile's slot: kept it would cost registers.
  __device__ __forceinline__ ColumnLimits limits(int block) const {
    const ForwardTile tile = tiles_.read(p_);
    const int row = tile.row + my_row();
    return {{tile.last_key(p_, row) - block * Traits::kKeys, tile.last_key(p_, row + 8) - block * Traits::kKeys}};
  }

  __device__ __forceinline__ void first_block() {
    const uint32_t stage = keys_stage();
    sm90::barrier_wait(q_full_, tiles_.count() & 1);
    wait_keys(stage);
    sm90::pin(scores_);
    sm90::wgmma_fence();
    issue_scores<Traits::kKeys>(stage);
    sm90::wgmma_wait<0>();
    sm90::pin(scores_);
    release_keys(stage);
    if (walk_.blocks == 1) release(q_empty_);
    if (walk_.unmasked == 0) mask_scores<Traits::kKeys>(scores_, limits(0));
    raise_maxima<true, Traits::kKeys>(scores_, rows_, p_.scale_log2e);
    exponentiate<true, Traits::kKeys>(scores_, rows_, p_.scale_log2e);
    pack_probabilities(probabilities_, scores_);
  }

  // The scores of `block` and the output of the block before it, in flight together; the softmax of this block runs
  // under that output and under the other warpgroup's turn.
  template <int kColumns, bool kMasked>
  __device__ __forceinline__ void step(int block) {
    const uint32_t stage = keys_stage();
    wait_keys(stage);
    sm90::named_barrier_sync(turn_, kTurnThreads);
    sm90::pin(scores_);
    sm90::wgmma_fence();
    issue_scores<kColumns>(stage);
    rescale_output(out_, rows_);
    wait_values(values_stage(stage));
    sm90::pin(out_);
    sm90::pin(probabilities_);
    sm90::wgmma_fence();
    issue_output<Traits::kKeys>(values_stage(stage), block > 1);
    sm90::named_barrier_arrive(next_turn_, kTurnThreads);
    sm90::wgmma_wait<1>();
    sm90::pin(scores_);
    release_keys(stage);
    if (block == walk_.blocks - 1) release(q_empty_);
    if constexpr (kMasked) mask_scores<kColumns>(scores_, limits(block));
    raise_maxima<false, kColumns>(scores_, rows_, p_.scale_log2e);
    exponentiate<false, kColumns>(scores_, rows_, p_.scale_log2e);
    sm90::wgmma_wait<0>();
    sm90::pin(out_);
    sm90::pin(probabilities_);
    release_values(values_stage(stage));
    pack_probabilities(probabilities_, scores_);
  }

  template <int kColumns>
  __device__ __forceinline__ void last_output() {
    const uint32_t stage = values_stage(keys_stage());
    rescale_output(out_, rows_);
    wait_values(stage);
    sm90::pin(out_);
    sm90::pin(probabilities_);
    sm90::wgmma_fence();
    issue_output<kColumns>(stage, walk_.blocks > 1);
    sm90::wgmma_wait<0>();
    sm90::pin(out_);
    release_values(stage);
  }
  // Gives back the blocks that the tile's other rows see and these don't.
  __device__ __forceinline__ void skip_blocks() {
    for (int i = 0; i < walk_.skipped; ++i) {
      const uint32_t stage = keys_stage();
      wait_keys(stage);
      release_keys(stage);
      wait_values(stage);
      release_values(stage);
    }
  }
  // The first of this thread's two rows in the tile.
  __device__ __forceinline__ int my_row() const {
    return 64 * (consumer_ * kCluster + block_rank<kCluster>()) + static_cast<int>(threadIdx.x % 128 / 32) * 16 +
           static_cast<int>(threadIdx.x % 32 / 4);
  }

  const ForwardParams& p_;
  const ForwardBarriers& barriers_;
  TileReader<kPacked, kCluster> tiles_;
  uint64_t queries_, keys_, values_;
  uint32_t q_full_, q_empty_;
  int turn_, next_turn_, consumer_;
  ForwardWalk walk_;
  Ring k_;  // key blocks that are done with
  SoftmaxRows rows_;
  float scores_[64], out_[64];
  uint32_t probabilities_[32];
};

template <bool kPacked, int kCluster>
__global__ void __launch_bounds__(ForwardTraits::kThreads, 1)
    mla_forward_kernel(const __grid_constant__ ForwardMaps maps, const __grid_constant__ ForwardParams p) {
  using Traits = ForwardTraits;
  extern __shared__ uint8_t dynamic_shared[];
  const uint32_t shared = (sm90::shared_address(dynamic_shared) + 1023) & ~1023u;
  const ForwardBarriers barriers(shared + Traits::kOffsetBarriers);
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 128), 0);
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);
  if (threadIdx.x == 32) {
    sm90::tma_prefetch_map(&maps.q_nope);
    sm90::tma_prefetch_map(&maps.q_pe);
    sm90::tma_prefetch_map(&maps.k_nope);
    sm90::tma_prefetch_map(&maps.k_pe);
    sm90::tma_prefetch_map(&maps.v);
  }
  if (threadIdx.x == 0) barriers.init<kPacked, kCluster>();
  if constexpr (kCluster == 1)
    __syncthreads();
  else
    sm90::cluster_sync();

  if (warpgroup == 0) {
    sm90::registers_decrease<Traits::kLoaderRegisters>();
    const bool leader = (threadIdx.x & 31) == 0;
    if (warp == 0 && leader) load_tiles_and_keys<kPacked, kCluster>(maps, p, shared, barriers);
    if (warp == 1 && (kPacked || leader)) load_values<kPacked, kCluster>(maps, p, shared, barriers);
    if (warp == 2 && leader) load_queries<kPacked, kCluster>(maps, p, shared, barriers);
    __syncwarp();
  } else {
    sm90::registers_increase<Traits::kConsumerRegisters>();
    ForwardConsumer<kPacked, kCluster>(p, shared, barriers, warpgroup - 1).run();
  }
  // The other block may still write here and arrive here.
  if constexpr (kCluster > 1) sm90::cluster_sync();
}

}  // namespace lathe::ops::cuda
