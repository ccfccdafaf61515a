// Grouped products on Hopper's tensor cores. Blocks stay and take tiles of 128 x 256 in turn: one thread has the copy
// engine bring both factors in steps of 64 along k, each of two warpgroups multiplies its 64 rows, and results leave by
// the copy engine while the next tile is multiplied.
#include <cuda_bf16.h>

#include "ops/cuda/grouped_linear_launch.h"
#include "ops/cuda/vectors.cuh"
#include "sm90/barrier.cuh"
#include "sm90/bulk.cuh"
#include "sm90/cluster.cuh"
#include "sm90/control.cuh"
#include "sm90/shared_memory.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kRows = kTensorRows;
constexpr int kColumns = kTensorColumns;
constexpr int kDepth = kTensorDepth;  // a panel's row: 128 bytes
constexpr int kStages = 3;
constexpr int kGroupRows = 64;  // of a warpgroup
constexpr int kConsumers = kRows / kGroupRows;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kPanelBytes = 64 * 128;
constexpr int kABytes = kRows * kDepth * 2;
constexpr int kBBytes = kColumns * kDepth * 2;
constexpr int kStageBytes = kABytes + kBBytes;

// Results are staged row by row: all columns in bf16, half of them in fp32. The distance of rows keeps a warp's stores
// in different banks.
constexpr int kStagedBytes = 512;
constexpr int kStagedStride16 = kStagedBytes + 16;
constexpr int kStagedStride32 = kStagedBytes + 32;
constexpr int kStaging = kStages * kStageBytes;
constexpr int kBarriers = kStaging + kRows * kStagedStride32;
constexpr int kSharedBytes = kBarriers + 2 * kStages * 8;
static_assert(kSharedBytes <= 227 * 1024);

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

// Where each factor's rows lie in shared memory and in which direction k runs there.
template <GroupedProduct kProduct>
struct Directions {
  static constexpr bool kAByRows = kProduct == GroupedProduct::weight_gradient;  // k along the rows
  static constexpr bool kBByRows = kProduct != GroupedProduct::forward;
};

struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

__device__ __forceinline__ std::uint32_t full_barrier(std::uint32_t base, int stage) {
  return base + kBarriers + stage * 8;
}
__device__ __forceinline__ std::uint32_t empty_barrier(std::uint32_t base, int stage) {
  return base + kBarriers + (kStages + stage) * 8;
}

// One thread. What lies outside of a factor's matrix becomes 0; another group's rows come as they are.
template <GroupedProduct kProduct>
__device__ __forceinline__ void load_tiles(const GroupedMaps& maps, const GroupedParams& params, std::uint32_t base) {
  using Along = Directions<kProduct>;
  constexpr int kBlocks = kCluster<kProduct>;
  Ring ring;
  Turns<kProduct> turns(params);
  for (Tile tile = turns.next(); tile.group >= 0; tile = turns.next()) {
    const int matrix = kProduct == GroupedProduct::weight_gradient ? 0 : tile.group;
    for (int k = 0; k < tile.depth; k += kDepth) {
      const std::uint32_t a = base + ring.stage * kStageBytes, b = a + kABytes;
      const std::uint32_t full = full_barrier(base, ring.stage);
      sm90::barrier_wait(empty_barrier(base, ring.stage), ring.parity ^ 1);
      sm90::barrier_arrive_expect(full, kStageBytes);
      if constexpr (Along::kAByRows) {
#pragma unroll
        for (int i = 0; i < kRows / 64; ++i)
          sm90::tma_load_matrix(a + i * kPanelBytes, &maps.a, full, tile.m0 + i * 64, tile.k0 + k, 0);
      } else {
        sm90::tma_load_matrix(a, &maps.a, full, k, tile.m0, 0);
      }
      if constexpr (kBlocks != 1) {
        constexpr int kPanels = kColumns / 64 / kBlocks;  // that this block reads for all
        constexpr std::uint16_t kAll = (1 << kBlocks) - 1;
#pragma unroll
        for (int i = 0; i < kPanels; ++i) {
          const int panel = turns.rank() * kPanels + i;
          sm90::tma_load_matrix_multicast(b + panel * kPanelBytes, &maps.b, full, tile.n0 + panel * 64, tile.k0 + k,
                                          matrix, kAll);
        }
      } else if constexpr (Along::kBByRows) {
#pragma unroll
        for (int i = 0; i < kColumns / 64; ++i)
          sm90::tma_load_matrix(b + i * kPanelBytes, &maps.b, full, tile.n0 + i * 64, tile.k0 + k, matrix);
      } else {
        sm90::tma_load_matrix(b, &maps.b, full, k, tile.n0, matrix);
      }
      ring.advance();
    }
  }
}

// What a warpgroup knows of itself.
struct Warpgroup {
  int index;   // of the consumers
  int thread;  // in it
  __device__ __forceinline__ int lane() const { return thread % 32; }
  // The first of the 16 rows of the tile that the thread's warp computes.
  __device__ __forceinline__ int first_row() const { return index * kGroupRows + thread / 32 * 16; }
  __device__ __forceinline__ void sync() const { sm90::named_barrier_sync(1 + index, 128); }
};

// The warp is done with a stage: said to the loaders of all blocks that write it.
template <GroupedProduct kProduct>
__device__ __forceinline__ void release(const Warpgroup& self, std::uint32_t base, int stage) {
  const std::uint32_t empty = empty_barrier(base, stage);
  if constexpr (kCluster<kProduct> == 1) {
    if (self.lane() == 0) sm90::barrier_arrive(empty);
  } else {
    if (self.lane() < kCluster<kProduct>) sm90::cluster_arrive_relaxed(sm90::cluster_address(empty, self.lane()));
  }
}

// Zeros for rows `valid` and up of the panels of a step that the warpgroup multiplies: they are another group's. The
// other warpgroup may write the same zeros.
__device__ __forceinline__ void clear_rows(const Warpgroup& self, std::uint32_t a, std::uint32_t b, int valid) {
  const int chunk = self.thread % 8 * 16;
  for (int row = valid + self.thread / 8; row < kDepth; row += 16) {
    sm90::store_shared_float4(a + row * 128 + chunk, 0, 0, 0, 0);
#pragma unroll
    for (int panel = 0; panel < kColumns / 64; ++panel)
      sm90::store_shared_float4(b + panel * kPanelBytes + row * 128 + chunk, 0, 0, 0, 0);
  }
  sm90::proxy_fence();
  self.sync();
}

// The warpgroup's part of a tile, `kWidth` columns of it. One step's products are issued before those of the step
// before are awaited.
template <GroupedProduct kProduct, int kWidth>
__device__ __forceinline__ void multiply(const Warpgroup& self, const Tile& tile, std::uint32_t base, Ring& ring,
                                         float (&sums)[128]) {
  using Along = Directions<kProduct>;
  int previous = -1;
  for (int k = 0; k < tile.depth; k += kDepth) {
    const std::uint32_t a = base + ring.stage * kStageBytes + self.index * kPanelBytes;
    const std::uint32_t b = base + ring.stage * kStageBytes + kABytes;
    sm90::barrier_wait(full_barrier(base, ring.stage), ring.parity);
    if constexpr (kProduct == GroupedProduct::weight_gradient)
      if (tile.depth - k < kDepth) clear_rows(self, a, b, tile.depth - k);
    const std::uint64_t a_first = sm90::descriptor(a, Along::kAByRows ? kPanelBytes : 16);
    const std::uint64_t b_first = sm90::descriptor(b, Along::kBByRows ? kPanelBytes : 16);
    sm90::pin(sums);
    sm90::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      const std::uint64_t a_step = sm90::advance(a_first, Along::kAByRows ? 2048 * i : 32 * i);
      const std::uint64_t b_step = sm90::advance(b_first, Along::kBByRows ? 2048 * i : 32 * i);
      const int accumulate = i > 0 || k > 0;
      if constexpr (kWidth == 256)
        sm90::wgmma_ss_n256<Along::kAByRows, Along::kBByRows>(sums, a_step, b_step, accumulate);
      else
        sm90::wgmma_ss_n128<Along::kAByRows, Along::kBByRows>(sums, a_step, b_step, accumulate);
    }
    sm90::wgmma_commit();
    sm90::wgmma_wait<1>();
    if (previous >= 0) release<kProduct>(self, base, previous);
    previous = ring.stage;
    ring.advance();
  }
  sm90::wgmma_wait<0>();
  sm90::pin(sums);
  release<kProduct>(self, base, previous);
}

// A tile of which the warpgroup has no rows.
template <GroupedProduct kProduct>
__device__ __forceinline__ void skip(const Warpgroup& self, const Tile& tile, std::uint32_t base, Ring& ring) {
  for (int k = 0; k < tile.depth; k += kDepth) {
    sm90::barrier_wait(full_barrier(base, ring.stage), ring.parity);
    release<kProduct>(self, base, ring.stage);
    ring.advance();
  }
}

// A warp stages the 16 rows that it computed and has them written. Begins the writing of columns `first` on.
template <typename Result, typename Write>
__device__ __forceinline__ void send_rows(const Warpgroup& self, const Tile& tile, int first, Write&& write) {
  constexpr int kStaged = kStagedBytes / static_cast<int>(sizeof(Result));
  sm90::proxy_fence();
  __syncwarp();
  const int row = self.first_row() + self.lane();
  const int columns = min(tile.columns - first, kStaged);
  if (self.lane() >= 16 || row >= tile.rows || columns <= 0) return;
  write(row, columns * static_cast<int>(sizeof(Result)));
  sm90::bulk_commit();
}

// Waits until the rows staged before have been read.
__device__ __forceinline__ void wait_for_staging() {
  sm90::bulk_wait_read();
  __syncwarp();
}

__device__ __forceinline__ void store_rows(const Warpgroup& self, const Tile& tile, const Matrix& result,
                                           std::uint32_t base, const float (&sums)[128]) {
  wait_for_staging();
  // Matrix i of four: 8 rows further for i % 2, 8 columns for i / 2.
  const std::uint32_t to =
      base + kStaging + (self.first_row() + self.lane() % 16) * kStagedStride16 + self.lane() / 16 * 16;
#pragma unroll
  for (int i = 0; i < 128; i += 8)
    sm90::store_matrices(to + i * 4, sm90::pack_bf16(sums[i], sums[i + 1]), sm90::pack_bf16(sums[i + 2], sums[i + 3]),
                         sm90::pack_bf16(sums[i + 4], sums[i + 5]), sm90::pack_bf16(sums[i + 6], sums[i + 7]));
  send_rows<__nv_bfloat16>(self, tile, 0, [&](int row, int bytes) {
    sm90::bulk_store(result.row<__nv_bfloat16>(tile.m0 + row) + tile.n0, base + kStaging + row * kStagedStride16,
                     bytes);
  });
}

__device__ __forceinline__ void add_rows(const Warpgroup& self, const Tile& tile, float* result, std::int64_t stride,
                                         std::uint32_t base, const float (&sums)[128]) {
  const std::uint32_t to =
      base + kStaging + (self.first_row() + self.lane() / 4) * kStagedStride32 + self.lane() % 4 * 8;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (half * 128 >= tile.columns) return;
    wait_for_staging();
#pragma unroll
    for (int i = 0; i < 64; i += 2)
      sm90::store_shared_float2(to + i % 4 / 2 * 8 * kStagedStride32 + i / 4 * 32, sums[half * 64 + i],
                                sums[half * 64 + i + 1]);
    send_rows<float>(self, tile, half * 128, [&](int row, int bytes) {
      sm90::bulk_add(result + row * stride + half * 128, base + kStaging + row * kStagedStride32, bytes);
    });
  }
}

// A bf16 gradient: what was there is added in fp32, so that there is one rounding.
__device__ __forceinline__ void add_rows(const Warpgroup& self, const Tile& tile, __nv_bfloat16* result,
                                         std::int64_t stride, std::uint32_t, const float (&sums)[128]) {
  const int first = self.first_row() + self.lane() / 4;
#pragma unroll
  for (int i = 0; i < 128; i += 2) {
    const int row = first + i % 4 / 2 * 8, column = i / 4 * 8 + self.lane() % 4 * 2;
    if (row >= tile.rows || column >= tile.columns) continue;
    float before[2];
    __nv_bfloat16* to = result + row * stride + column;
    load<2>(to, before);
    store<2>({before[0] + sums[i], before[1] + sums[i + 1]}, to);
  }
}

template <GroupedProduct kProduct, typename Result>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_product(const __grid_constant__ GroupedMaps maps, const GroupedParams params) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const std::uint32_t base = sm90::shared_address(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      sm90::barrier_init(full_barrier(base, stage), 1);
      sm90::barrier_init(empty_barrier(base, stage), kCluster<kProduct> * kConsumers * 4);  // a warp each
    }
    sm90::barrier_init_fence();
  }
  if constexpr (kCluster<kProduct> == 1)
    __syncthreads();
  else
    sm90::cluster_sync();
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  if (warpgroup == kConsumers) {
    sm90::registers_decrease<40>();
    if (threadIdx.x == kConsumers * 128) load_tiles<kProduct>(maps, params, base);
    __syncwarp();
  } else {
    sm90::registers_increase<232>();
    const Warpgroup self{warpgroup, static_cast<int>(threadIdx.x) % 128};
    Ring ring;
    float sums[128];
    Turns<kProduct> turns(params);
    Tile tile = turns.next();
    while (tile.group >= 0) {
      const Tile next = turns.next();  // read early
      if (tile.rows <= self.index * kGroupRows) {
        skip<kProduct>(self, tile, base, ring);
      } else if (tile.depth > 0) {
        if (tile.columns > 128)
          multiply<kProduct, 256>(self, tile, base, ring, sums);
        else
          multiply<kProduct, 128>(self, tile, base, ring, sums);
        if constexpr (kProduct == GroupedProduct::weight_gradient)
          add_rows(self, tile,
                   static_cast<Result*>(params.weight) + tile.group * params.weight_group +
                       tile.m0 * params.weight_row + tile.n0,
                   params.weight_row, base, sums);
        else
          store_rows(self, tile, kProduct == GroupedProduct::forward ? params.y : params.x, base, sums);
      }
      tile = next;
    }
    sm90::bulk_wait();
    __syncwarp();
  }
  // Another block may still write here and arrive here.
  if constexpr (kCluster<kProduct> != 1) sm90::cluster_sync();
}

template <GroupedProduct kProduct, typename Result>
cudaError_t launch(int tiles, const GroupedMaps& maps, const GroupedParams& params, int multiprocessors,
                   cudaStream_t stream) {
  const auto kernel = grouped_product<kProduct, Result>;
  constexpr int kBlocks = kCluster<kProduct>;
  const cudaError_t result = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (result != cudaSuccess) return result;
  const int most = multiprocessors / kBlocks < 1 ? 1 : multiprocessors / kBlocks;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = kBlocks;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((tiles < most ? tiles : most) * kBlocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, maps, params);
}

}  // namespace

cudaError_t launch_grouped_tensor(GroupedProduct product, const GroupedMaps& maps, const GroupedParams& params,
                                  int multiprocessors, cudaStream_t stream) {
  constexpr GroupedProduct kForward = GroupedProduct::forward, kInput = GroupedProduct::input_gradient,
                           kWeight = GroupedProduct::weight_gradient;
  const int out = tiles_along(params.out, kColumns), in = tiles_along(params.in, kColumns);
  if (product == kForward)
    return launch<kForward, __nv_bfloat16>(params.most_tiles * out, maps, params, multiprocessors, stream);
  if (product == kInput)
    return launch<kInput, __nv_bfloat16>(params.most_tiles * in, maps, params, multiprocessors, stream);
  const int tiles = params.groups * tiles_along(params.out, kRows * kCluster<kWeight>) * in;
  if (params.weight_element == Element::f32)
    return launch<kWeight, float>(tiles, maps, params, multiprocessors, stream);
  return launch<kWeight, __nv_bfloat16>(tiles, maps, params, multiprocessors, stream);
}

}  // namespace lathe::ops::cuda
