// What the forward kernel is compiled for and what it is told.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace lathe::ops::cuda {

// One tile step is 128 queries by 128 keys: two consumer warpgroups of 64 rows each. Per step the tensor cores need
// 2560 cycles and the exponentials 1024.
struct ForwardTraits {
  static constexpr int kConsumers = 2;
  static constexpr int kThreads = 128 * (kConsumers + 1);
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kKeys = 128;
  static constexpr int kNope = 128, kRope = 64, kValue = 128;  // head sizes
  // 64 output and 64 score accumulators and 32 packed probabilities leave about 80 for the rest; the loaders take what
  // is left of 168 x 384: registers come in steps of 8.
  static constexpr int kConsumerRegisters = 232, kLoaderRegisters = 40;

  // Shared memory, in bytes: Q once, K and V in two stages; a third K stage does not fit 227 KB.
  static constexpr int kStages = 2;
  static constexpr int kTileSlots = 4;  // tiles that the loaders may be ahead of the slowest reader
  static constexpr int kPanelColumns = 64;
  static constexpr int kRowBytes = 2 * kPanelColumns;
  static constexpr int kQPanel = 64 * kRowBytes;  // of one warpgroup
  static constexpr int kKeyPanel = kKeys * kRowBytes;
  static constexpr int kNopePanels = kNope / kPanelColumns, kValuePanels = kValue / kPanelColumns;
  static constexpr int kQBytes = (kNopePanels + 1) * kQPanel;  // of one warpgroup: nope panels, then rope
  static constexpr int kKBytes = (kNopePanels + 1) * kKeyPanel;
  static constexpr int kVBytes = kValuePanels * kKeyPanel;
  static constexpr int kOffsetK = kConsumers * kQBytes;
  static constexpr int kOffsetV = kOffsetK + kStages * kKBytes;
  static constexpr int kOffsetTiles = kOffsetV + kStages * kVBytes;
  static constexpr int kTileBytes = 64;
  static constexpr int kOffsetBarriers = kOffsetTiles + kTileSlots * kTileBytes;
  static constexpr int kBarriers = 2 * kConsumers + 4 * kStages + 2 * kTileSlots + 2;
  static constexpr int kSharedBytes = kOffsetBarriers + 8 * kBarriers + 1024;  // the base is aligned to 1024 by hand
};
static_assert(ForwardTraits::kSharedBytes <= 227 * 1024);

// Quotients by a number that is known at launch: a division takes a thread some 40 instructions, this one 3 (Granlund
// and Montgomery, 1994). Exact for values below 2^31.
struct Divisor {
  std::uint32_t multiplier = 0;
  std::uint32_t shift = 0;

  Divisor() = default;
  explicit Divisor(std::uint32_t divisor) {
    while ((std::uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << (31 + shift)) + divisor - 1) / divisor);
  }
#ifdef __CUDACC__
  __device__ __forceinline__ int divide(int value) const {
    return static_cast<int>((static_cast<std::uint64_t>(value) * multiplier) >> (31 + shift));
  }
#endif
};

// The order of tiles, longest first: a long tile taken last would run alone. Position p of the list counts row tiles
// from the longest; a group is a (batch, head) pair, or a head where sequences are packed. Groups are innermost:
// neighbours in the list share the keys of a head. Groups are taken in sections of equal size whose keys and values fit
// the second-level cache, and the short tiles of all sections are pooled at the end, so that all blocks finish
// together.
struct ForwardSchedule {
  int row_tiles = 0;  // of a group; of packed sequences it is known on the device only
  int groups = 0;
  int section_groups = 0;
  float short_share = 0;  // of a group's row tiles: pooled
  Divisor by_section_groups, by_groups, by_heads;
  Divisor by_section_tiles;  // section_groups times the tiles that are not pooled; not for packed sequences
};

// A row tile of packed sequences, made by the prepare kernel.
struct PackedTile {
  int sequence = 0;
  int row = 0;  // its first row in the sequence
};

// Device memory that stays zero between calls.
struct ForwardCounters {
  int next_tile = 0;
  int finished = 0;  // blocks, or clusters of them
};

struct ForwardParams {
  __nv_bfloat16* out = nullptr;
  std::int64_t out_batch = 0, out_token = 0, out_head = 0;  // strides in elements
  float* lse = nullptr;
  std::int64_t lse_batch = 0, lse_token = 0, lse_head = 0;
  int heads = 0;
  int s_q = 0, s_k = 0;  // of every sequence; not used where they are packed
  bool causal = true;
  float scale = 0;  // of the scores
  float scale_log2e = 0;
  ForwardSchedule schedule;
  ForwardCounters* counters = nullptr;
  std::uint64_t* clock_counters = nullptr;
  // Packed sequences.
  const int* cu_seqlens_q = nullptr;
  const int* cu_seqlens_k = nullptr;
  const PackedTile* tiles = nullptr;  // longest first
  const int* tile_count = nullptr;
};

// {64 columns, head, token, panel, batch}; a box is all panels of 64 (q) or 128 (k, v) tokens of one head.
struct ForwardMaps {
  CUtensorMap q_nope, q_pe, k_nope, k_pe, v;
};

}  // namespace lathe::ops::cuda
