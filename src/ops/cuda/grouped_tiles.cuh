// Grouped products on tensor cores: tiles, who takes which, and what lies where in a block's shared memory.
#pragma once

#include <cstdint>

#include "ops/cuda/grouped_linear_launch.h"
#include "sm90/barrier.cuh"

namespace lathe::ops::cuda::grouped {

constexpr int kRows = kTensorRows;
constexpr int kColumns = kTensorColumns;
constexpr int kGroupRows = kTensorGroupRows;  // of a warpgroup
constexpr int kConsumers = kRows / kGroupRows;
constexpr int kThreads = (kConsumers + 1) * 128;

// Results in bf16 are staged row by row; the distance of rows keeps a warp's stores in different banks.
constexpr int kStagedStride = kColumns * 2 + 16;

// A gradient in fp32 is staged as the boxes of its map.
constexpr int kBoxColumns = 32;
constexpr int kBoxBytes = kGroupRows * kBoxColumns * 4;
constexpr int kBoxes = kColumns / kBoxColumns;  // of a warpgroup

// Shared memory from its first byte on: the factors' stages, results, barriers.
template <GroupedProduct kProduct>
struct Layout {
  static constexpr bool kGradient = kProduct == GroupedProduct::weight_gradient;
  static constexpr int kDepth = tensor_depth(kProduct);
  static constexpr int kStages = kGradient ? 4 : 3;  // a gradient leaves less room for the factors
  static constexpr int kPanelBytes = kDepth * 128;
  static constexpr int kABytes = kRows * kDepth * 2;
  static constexpr int kBBytes = kColumns * kDepth * 2;
  static constexpr int kStageBytes = kABytes + kBBytes;
  static constexpr int kStaging = kStages * kStageBytes;
  static constexpr int kBarriers = kStaging + (kGradient ? kConsumers * kBoxes * kBoxBytes : kRows * kStagedStride);
  static constexpr int kSharedBytes = kBarriers + 8 * (2 * kStages + (kGradient ? 2 * kConsumers * kBoxes : 0));
  static_assert(kSharedBytes <= 227 * 1024 && kStaging % 1024 == 0);

  // A stage of the factors has come; it has been read.
  static __device__ __forceinline__ std::uint32_t full(std::uint32_t base, int stage) {
    return base + kBarriers + stage * 8;
  }
  static __device__ __forceinline__ std::uint32_t empty(std::uint32_t base, int stage) {
    return full(base, kStages + stage);
  }
  // What a box of the gradient was has come; what it becomes is there.
  static __device__ __forceinline__ std::uint32_t loaded(std::uint32_t base, int consumer, int box) {
    return full(base, 2 * kStages + consumer * kBoxes + box);
  }
  static __device__ __forceinline__ std::uint32_t added(std::uint32_t base, int consumer, int box) {
    return loaded(base, kConsumers + consumer, box);
  }
};

// Blocks that take tiles one below the other and read the factor that these share once: the weight's gradient has tiles
// in plenty, and the same depth in all of a group.
template <GroupedProduct kProduct>
inline constexpr int kCluster = kProduct == GroupedProduct::weight_gradient ? 2 : 1;

// A tile of the result. Nothing to do, and nothing after it, where group is -1.
struct Tile {
  int group;
  int m0, n0;         // its place; rows of x or y count from the first group's
  int rows, columns;  // of it inside of the result; columns may be more than the tile has
  int k0, depth;      // the weight's gradient: the rows to sum over
};

__host__ __device__ constexpr int tiles_along(int size, int tile) { return (size + tile - 1) / tile; }

// The `index`-th tile of the block of that rank: all blocks of a cluster have one, which may lie outside.
template <GroupedProduct kProduct>
__device__ __forceinline__ Tile tile_at(const GroupedParams& params, int index, int rank) {
  if constexpr (kProduct == GroupedProduct::weight_gradient) {
    constexpr int kClusterRows = kRows * kCluster<kProduct>;
    const int down = tiles_along(params.out, kClusterRows), across = tiles_along(params.in, kColumns);
    const int group = index / (down * across), place = index % (down * across);
    if (group >= params.groups) return {-1, 0, 0, 0, 0, 0, 0};
    const int m0 = place % down * kClusterRows + rank * kRows, n0 = place / down * kColumns;
    const int begin = params.offsets[group], end = params.offsets[group + 1];
    return {group, m0, n0, params.out - m0, params.in - n0, begin, end - begin};
  } else {
    constexpr bool kForward = kProduct == GroupedProduct::forward;
    const int width = kForward ? params.out : params.in;
    const int across = tiles_along(width, kColumns);
    if (index / across >= params.most_tiles) return {-1, 0, 0, 0, 0, 0, 0};
    const RowTile rows = params.tiles[index / across];
    const int n0 = index % across * kColumns;
    return {rows.group, rows.begin, n0, rows.end - rows.begin, width - n0, 0, kForward ? params.in : params.out};
  }
}

// The tiles of a block: every so many.
template <GroupedProduct kProduct>
class Turns {
 public:
  __device__ __forceinline__ explicit Turns(const GroupedParams& params) : params_(params) {}
  __device__ __forceinline__ Tile next() {
    const Tile tile = tile_at<kProduct>(params_, index_, rank());
    index_ += static_cast<int>(gridDim.x) / kCluster<kProduct>;
    return tile;
  }
  static __device__ __forceinline__ int rank() { return static_cast<int>(blockIdx.x) % kCluster<kProduct>; }

 private:
  const GroupedParams& params_;
  int index_ = static_cast<int>(blockIdx.x) / kCluster<kProduct>;
};

template <GroupedProduct kProduct>
struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage < Layout<kProduct>::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// What a warpgroup knows of itself.
struct Warpgroup {
  int index;   // of the consumers
  int thread;  // in it
  __device__ __forceinline__ int lane() const { return thread % 32; }
  // The first of the 16 rows of the tile that the thread's warp computes.
  __device__ __forceinline__ int first_row() const { return index * kGroupRows + thread / 32 * 16; }
  __device__ __forceinline__ void sync() const { sm90::named_barrier_sync(1 + index, 128); }
};

}  // namespace lathe::ops::cuda::grouped
