// Grouped products on Hopper's tensor cores. Blocks stay and take tiles of 128 x 256 in turn: one thread has the copy
// engine bring both factors in steps along k (tensor_depth), each of two warpgroups multiplies its 64 rows, and results
// leave by the copy engine while the next tile is multiplied.
#include <cuda_bf16.h>

#include <type_traits>

#include "ops/cuda/grouped_gradient.cuh"
#include "ops/cuda/grouped_tiles.cuh"
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

using namespace grouped;

// Where each factor's rows lie in shared memory and in which direction k runs there.
template <GroupedProduct kProduct>
struct Directions {
  static constexpr bool kAByRows = kProduct == GroupedProduct::weight_gradient;  // k along the rows
  static constexpr bool kBByRows = kProduct != GroupedProduct::forward;
};

// One thread. What lies outside of a factor's matrix becomes 0; another group's rows come as they are.
template <GroupedProduct kProduct>
__device__ __forceinline__ void load_tiles(const GroupedMaps& maps, const GroupedParams& params, std::uint32_t base) {
  using Along = Directions<kProduct>;
  using In = Layout<kProduct>;
  constexpr int kBlocks = kCluster<kProduct>;
  constexpr int kPanelBytes = In::kPanelBytes;
  Ring<kProduct> ring;
  Turns<kProduct> turns(params);
  for (Tile tile = turns.next(); tile.group >= 0; tile = turns.next()) {
    const int matrix = kProduct == GroupedProduct::weight_gradient ? 0 : tile.group;
    const int groups = min(max(tile.rows + kGroupRows - 1, 0) / kGroupRows, kConsumers);  // with rows to multiply
    for (int k = 0; k < tile.depth; k += In::kDepth) {
      const std::uint32_t a = base + ring.stage * In::kStageBytes, b = a + In::kABytes;
      const std::uint32_t full = In::full(base, ring.stage);
      sm90::barrier_wait(In::empty(base, ring.stage), ring.parity ^ 1);
      sm90::barrier_arrive_expect(full, groups * kPanelBytes + In::kBBytes);
      for (int i = 0; i < groups; ++i) {
        const int m = tile.m0 + i * kGroupRows, along = tile.k0 + k;
        sm90::tma_load_matrix(a + i * kPanelBytes, &maps.a, full, Along::kAByRows ? m : along,
                              Along::kAByRows ? along : m, 0);
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

// The warp is done with a stage: said to the loaders of all blocks that write it.
template <GroupedProduct kProduct>
__device__ __forceinline__ void release(const Warpgroup& self, std::uint32_t base, int stage) {
  const std::uint32_t empty = Layout<kProduct>::empty(base, stage);
  if constexpr (kCluster<kProduct> == 1) {
    if (self.lane() == 0) sm90::barrier_arrive(empty);
  } else {
    if (self.lane() < kCluster<kProduct>) sm90::cluster_arrive_relaxed(sm90::cluster_address(empty, self.lane()));
  }
}

// Zeros for rows `valid` and up of the panels of a step that the warpgroup multiplies: they are another group's. The
// other warpgroup may write the same zeros.
__device__ __forceinline__ void clear_rows(const Warpgroup& self, std::uint32_t a, std::uint32_t b, int valid) {
  using In = Layout<GroupedProduct::weight_gradient>;
  const int chunk = self.thread % 8 * 16;
  for (int row = valid + self.thread / 8; row < In::kDepth; row += 16) {
    sm90::store_shared_float4(a + row * 128 + chunk, 0, 0, 0, 0);
#pragma unroll
    for (int panel = 0; panel < kColumns / 64; ++panel)
      sm90::store_shared_float4(b + panel * In::kPanelBytes + row * 128 + chunk, 0, 0, 0, 0);
  }
  sm90::proxy_fence();
  self.sync();
}

// The warpgroup's part of a tile, `kWidth` columns of it. One step's products are issued before those of the step
// before are awaited.
template <GroupedProduct kProduct, int kWidth>
__device__ __forceinline__ void multiply(const Warpgroup& self, const Tile& tile, std::uint32_t base,
                                         Ring<kProduct>& ring, float (&sums)[128]) {
  using Along = Directions<kProduct>;
  using In = Layout<kProduct>;
  constexpr int kDepth = In::kDepth, kPanelBytes = In::kPanelBytes;
  int previous = -1;
  for (int k = 0; k < tile.depth; k += kDepth) {
    const std::uint32_t a = base + ring.stage * In::kStageBytes + self.index * kPanelBytes;
    const std::uint32_t b = base + ring.stage * In::kStageBytes + In::kABytes;
    sm90::barrier_wait(In::full(base, ring.stage), ring.parity);
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
__device__ __forceinline__ void skip(const Warpgroup& self, const Tile& tile, std::uint32_t base,
                                     Ring<kProduct>& ring) {
  for (int k = 0; k < tile.depth; k += Layout<kProduct>::kDepth) {
    sm90::barrier_wait(Layout<kProduct>::full(base, ring.stage), ring.parity);
    release<kProduct>(self, base, ring.stage);
    ring.advance();
  }
}

// A warp stages the 16 rows that it computed and has them written.
template <GroupedProduct kProduct>
__device__ __forceinline__ void store_rows(const Warpgroup& self, const Tile& tile, const Matrix& result,
                                           std::uint32_t base, const float (&sums)[128]) {
  const std::uint32_t staging = base + Layout<kProduct>::kStaging;
  sm90::bulk_wait_read<0>();
  __syncwarp();
  // Matrix i of four: 8 rows further for i % 2, 8 columns for i / 2.
  const std::uint32_t to = staging + (self.first_row() + self.lane() % 16) * kStagedStride + self.lane() / 16 * 16;
#pragma unroll
  for (int i = 0; i < 128; i += 8)
    sm90::store_matrices(to + i * 4, sm90::pack_bf16(sums[i], sums[i + 1]), sm90::pack_bf16(sums[i + 2], sums[i + 3]),
                         sm90::pack_bf16(sums[i + 4], sums[i + 5]), sm90::pack_bf16(sums[i + 6], sums[i + 7]));
  sm90::proxy_fence();
  __syncwarp();
  const int row = self.first_row() + self.lane();
  if (self.lane() >= 16 || row >= tile.rows) return;
  sm90::bulk_store(result.row<__nv_bfloat16>(tile.m0 + row) + tile.n0, staging + row * kStagedStride,
                   2 * min(tile.columns, kColumns));
  sm90::bulk_commit();
}

// A bf16 gradient: what was there is added in fp32, so that there is one rounding.
__device__ __forceinline__ void add_rounded(const Warpgroup& self, const Tile& tile, __nv_bfloat16* result,
                                            std::int64_t stride, const float (&sums)[128]) {
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
inline constexpr bool kMovesGradient = (kProduct == GroupedProduct::weight_gradient) && std::is_same_v<Result, float>;

template <GroupedProduct kProduct, typename Result>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_product(const __grid_constant__ GroupedMaps maps, const GroupedParams params) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  using In = Layout<kProduct>;
  const std::uint32_t base = sm90::shared_address(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < In::kStages; ++stage) {
      sm90::barrier_init(In::full(base, stage), 1);
      sm90::barrier_init(In::empty(base, stage), kCluster<kProduct> * kConsumers * 4);  // a warp each
    }
    if constexpr (kMovesGradient<kProduct, Result>)
      for (int box = 0; box < kConsumers * kBoxes; ++box) {
        sm90::barrier_init(In::loaded(base, 0, box), 1);
        sm90::barrier_init(In::added(base, 0, box), 4);  // a warp each
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
    const int warp = static_cast<int>(threadIdx.x) / 32 - kConsumers * 4;
    if (threadIdx.x % 32 == 0) {
      if (warp == 0) load_tiles<kProduct>(maps, params, base);
      if constexpr (kMovesGradient<kProduct, Result>)
        if (warp > 0 && warp <= kConsumers) move_gradient(maps, params, base, warp - 1);
    }
    __syncwarp();
  } else {
    sm90::registers_increase<232>();
    const Warpgroup self{warpgroup, static_cast<int>(threadIdx.x) % 128};
    Ring<kProduct> ring;
    std::uint32_t parity = 0;  // of the gradient's barriers
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
        if constexpr (kMovesGradient<kProduct, Result>) {
          add_to_gradient(self, base, parity, sums);
          parity ^= 1;
        } else if constexpr (kProduct == GroupedProduct::weight_gradient) {
          add_rounded(self, tile,
                      static_cast<Result*>(params.weight) + tile.group * params.weight_group +
                          tile.m0 * params.weight_row + tile.n0,
                      params.weight_row, sums);
        } else {
          store_rows<kProduct>(self, tile, kProduct == GroupedProduct::forward ? params.y : params.x, base, sums);
        }
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
  const cudaError_t result =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           Layout<kProduct>::kSharedBytes);
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
  config.dynamicSmemBytes = Layout<kProduct>::kSharedBytes;
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
