// Grouped products on Hopper's tensor cores: a block of two warpgroups makes a tile of 128 x 128. Both factors come in
// steps of 64 along k, by asynchronous copies of 16 bytes whose rows are checked against the group: what lies outside
// is zero in shared memory, so that a neighbour's rows never enter a sum.
#include <cuda_bf16.h>

#include "ops/cuda/grouped_linear_launch.h"
#include "ops/cuda/vectors.cuh"
#include "sm90/barrier.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kTile = kTensorRows;
constexpr int kDepth = 64;  // a panel's row: 128 bytes
constexpr int kStages = 3;  // 96 KiB: two blocks an SM, one loads while the other multiplies
constexpr int kThreads = 256;
constexpr int kFactorBytes = kTile * kDepth * 2;
constexpr int kStageBytes = 2 * kFactorBytes;
constexpr int kPanelBytes = 64 * 128;
constexpr int kResultStride = kTile + 4;  // floats; neighbouring rows begin in different banks
constexpr int kSharedBytes = kStages * kStageBytes;
static_assert(kTile * kResultStride * 4 <= kSharedBytes);

// A factor in global memory: `rows` rows of `columns` elements from `data` on. In a factor with k along its columns the
// rows are the result's rows or columns; else the rows are k.
struct Factor {
  const __nv_bfloat16* data;
  std::int64_t stride;
  int rows, columns;
};

__device__ __forceinline__ void copy_16(std::uint32_t to, const __nv_bfloat16* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// The step of a factor that begins at k0, as panels of 128-byte rows with the 128-byte swizzle: one panel of 128 rows,
// or with k along the rows two panels of 64.
template <bool kRowsAreK>
__device__ __forceinline__ void load_factor(const Factor& factor, int k0, std::uint32_t to) {
  constexpr int kChunks = kRowsAreK ? 16 : 8;  // of 16 bytes, in a row of the step
#pragma unroll
  for (int i = 0; i < kFactorBytes / 16 / kThreads; ++i) {
    const int index = static_cast<int>(threadIdx.x) + i * kThreads;
    const int row = index / kChunks, chunk = index % kChunks;
    const int at_row = kRowsAreK ? k0 + row : row;
    const int at_column = kRowsAreK ? chunk * 8 : k0 + chunk * 8;
    const bool inside = at_row < factor.rows && at_column < factor.columns;
    copy_16(to + chunk / 8 * kPanelBytes + row * 128 + ((chunk % 8) ^ (row % 8)) * 16,
            inside ? factor.data + static_cast<std::int64_t>(at_row) * factor.stride + at_column : factor.data, inside);
  }
}

// A tile of the result: `rows` x `columns` of it lie inside.
struct Tile {
  int rows, columns, k;
};

template <bool kAByRows, bool kBByRows, bool kAccumulate, typename Result>
__device__ __forceinline__ void multiply_tile(const Factor& a, const Factor& b, const Tile& tile, Result* result,
                                              std::int64_t result_stride) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const std::uint32_t base = sm90::shared_address(shared);
  const int steps = (tile.k + kDepth - 1) / kDepth;
  const auto load_step = [&](int step) {
    const std::uint32_t stage = base + static_cast<std::uint32_t>(step % kStages * kStageBytes);
    load_factor<kAByRows>(a, step * kDepth, stage);
    load_factor<kBByRows>(b, step * kDepth, stage + kFactorBytes);
  };
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load_step(step);
    commit_copies();
  }

  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  float sums[64];
#pragma unroll
  for (float& sum : sums) sum = 0;
  for (int step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    sm90::proxy_fence();
    __syncthreads();  // the step has arrived, and every warpgroup is done with the one before
    if (step + kStages - 1 < steps) load_step(step + kStages - 1);
    commit_copies();
    const std::uint32_t stage = base + static_cast<std::uint32_t>(step % kStages * kStageBytes);
    // The warpgroup's 64 rows of the result: 64 rows of a's panel, or the second panel.
    const std::uint64_t a_first = sm90::descriptor(stage + warpgroup * kPanelBytes, kAByRows ? kPanelBytes : 16);
    const std::uint64_t b_first = sm90::descriptor(stage + kFactorBytes, kBByRows ? kPanelBytes : 16);
    sm90::pin(sums);
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k)
      sm90::wgmma_ss_n128<kAByRows ? 1 : 0, kBByRows ? 1 : 0>(sums,
                                                              sm90::advance(a_first, kAByRows ? 2048 * k : 32 * k),
                                                              sm90::advance(b_first, kBByRows ? 2048 * k : 32 * k), 1);
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
    sm90::pin(sums);
  }

  // Through shared memory, so that rows are written 16 bytes a thread.
  wait_copies<0>();
  __syncthreads();
  float* staged = reinterpret_cast<float*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < 64; i += 2) {
    const int row = first_row + i % 4 / 2 * 8;
    const int column = i / 4 * 8 + lane % 4 * 2;
    *reinterpret_cast<float2*>(staged + row * kResultStride + column) = make_float2(sums[i], sums[i + 1]);
  }
  __syncthreads();
  constexpr int kPack = 16 / static_cast<int>(sizeof(Result));
  for (int index = static_cast<int>(threadIdx.x); index < kTile * (kTile / kPack); index += kThreads) {
    const int row = index / (kTile / kPack);
    const int column = index % (kTile / kPack) * kPack;
    if (row >= tile.rows || column >= tile.columns) continue;
    float values[kPack];
    load<kPack>(staged + row * kResultStride + column, values);
    Result* to = result + row * result_stride + column;
    if (kAccumulate) {
      float before[kPack];
      load<kPack>(to, before);
#pragma unroll
      for (int i = 0; i < kPack; ++i) values[i] += before[i];
    }
    store<kPack>(values, to);
  }
}

__global__ void __launch_bounds__(kThreads, 2) forward(GroupedParams params) {
  const RowTile rows = params.tiles[blockIdx.y];
  if (rows.group < 0) return;
  const int n0 = static_cast<int>(blockIdx.x) * kTile;
  const auto* weight = static_cast<const __nv_bfloat16*>(params.weight) + rows.group * params.weight_group;
  const Tile tile{rows.end - rows.begin, params.out - n0, params.in};
  multiply_tile<false, false, false>(
      {params.x.row<const __nv_bfloat16>(rows.begin), params.x.stride, tile.rows, tile.k},
      {weight + n0 * params.weight_row, params.weight_row, tile.columns, tile.k}, tile,
      params.y.row<__nv_bfloat16>(rows.begin) + n0, params.y.stride);
}

__global__ void __launch_bounds__(kThreads, 2) input_gradient(GroupedParams params) {
  const RowTile rows = params.tiles[blockIdx.y];
  if (rows.group < 0) return;
  const int n0 = static_cast<int>(blockIdx.x) * kTile;
  const auto* weight = static_cast<const __nv_bfloat16*>(params.weight) + rows.group * params.weight_group;
  const Tile tile{rows.end - rows.begin, params.in - n0, params.out};
  multiply_tile<false, true, false>({params.y.row<const __nv_bfloat16>(rows.begin), params.y.stride, tile.rows, tile.k},
                                    {weight + n0, params.weight_row, tile.k, tile.columns}, tile,
                                    params.x.row<__nv_bfloat16>(rows.begin) + n0, params.x.stride);
}

template <typename Result>
__global__ void __launch_bounds__(kThreads, 2) weight_gradient(GroupedParams params) {
  const int group = static_cast<int>(blockIdx.z);
  const std::int32_t begin = params.offsets[group], end = params.offsets[group + 1];
  if (begin == end) return;
  const int m0 = static_cast<int>(blockIdx.y) * kTile;
  const int n0 = static_cast<int>(blockIdx.x) * kTile;
  const Tile tile{params.out - m0, params.in - n0, end - begin};
  multiply_tile<true, true, true>(
      {params.y.row<const __nv_bfloat16>(begin) + m0, params.y.stride, tile.k, tile.rows},
      {params.x.row<const __nv_bfloat16>(begin) + n0, params.x.stride, tile.k, tile.columns}, tile,
      static_cast<Result*>(params.weight) + group * params.weight_group + m0 * params.weight_row + n0,
      params.weight_row);
}

cudaError_t launch(void (*kernel)(GroupedParams), dim3 grid, const GroupedParams& params, cudaStream_t stream) {
  const cudaError_t result = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (result != cudaSuccess) return result;
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(params);
  return cudaGetLastError();
}

unsigned tiles_along(std::int64_t size) { return static_cast<unsigned>((size + kTile - 1) / kTile); }

}  // namespace

cudaError_t launch_grouped_tensor(GroupedProduct product, const GroupedParams& params, cudaStream_t stream) {
  const auto most_tiles = static_cast<unsigned>(params.most_tiles);
  if (product == GroupedProduct::forward)
    return launch(forward, dim3(tiles_along(params.out), most_tiles), params, stream);
  if (product == GroupedProduct::input_gradient)
    return launch(input_gradient, dim3(tiles_along(params.in), most_tiles), params, stream);
  const dim3 grid(tiles_along(params.in), tiles_along(params.out), static_cast<unsigned>(params.groups));
  const bool wide = params.weight_element == Element::f32;
  return launch(wide ? weight_gradient<float> : weight_gradient<__nv_bfloat16>, grid, params, stream);
}

}  // namespace lathe::ops::cuda
