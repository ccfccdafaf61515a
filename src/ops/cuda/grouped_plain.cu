// Grouped products in plain fp32 arithmetic, and the list of row tiles.
#include "ops/cuda/grouped_linear_launch.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kTile = kPlainRows;  // rows and columns of a block's result
constexpr int kDepth = 16;
constexpr int kThreads = 256;
constexpr int kSide = 4;  // a thread's part of the result is kSide x kSide
static_assert(kTile / kSide * (kTile / kSide) == kThreads);

constexpr int kListThreads = 256;

// A warp takes a group; its first place is the sum over the groups before it.
__global__ void __launch_bounds__(kListThreads) list_tiles(GroupedParams params, int rows, RowTile* tiles) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto tiles_before = [&](int groups) {
    int count = 0;
    for (int group = lane; group < groups; group += 32)
      count += (params.offsets[group + 1] - params.offsets[group] + rows - 1) / rows;
    return warp_sum(count);
  };
  for (int group = static_cast<int>(threadIdx.x) / 32; group < params.groups; group += kListThreads / 32) {
    const std::int32_t begin = params.offsets[group], end = params.offsets[group + 1];
    const int first = tiles_before(group);
    if (end < begin || first + (end - begin + rows - 1) / rows > params.most_tiles)
      __trap();  // more rows than there are
    for (int i = lane; begin + i * rows < end; i += 32)
      tiles[first + i] = {group, begin + i * rows, min(begin + (i + 1) * rows, end)};
  }
  for (int i = tiles_before(params.groups) + static_cast<int>(threadIdx.x); i < params.most_tiles; i += kListThreads)
    tiles[i] = {-1, 0, 0};
}

// result[m, n] (+)= the sum over k of a(m, k) * b(k, n), element by element of whatever lies behind a, b and result.
struct Extent {
  std::int64_t m, n, k;
};

template <typename A, typename B, typename Result>
__device__ __forceinline__ void multiply_tile(Extent extent, std::int64_t m0, std::int64_t n0, A&& a, B&& b,
                                              Result&& result) {
  __shared__ float as[kDepth][kTile + 1];
  __shared__ float bs[kDepth][kTile + 1];
  const int row = static_cast<int>(threadIdx.x) / (kTile / kSide) * kSide;
  const int column = static_cast<int>(threadIdx.x) % (kTile / kSide) * kSide;
  float sums[kSide][kSide] = {};
  for (std::int64_t k0 = 0; k0 < extent.k; k0 += kDepth) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * kTile; i += kThreads) {
      const int at = i % kTile, k = i / kTile;
      const bool inside = k0 + k < extent.k;
      as[k][at] = inside && m0 + at < extent.m ? a(m0 + at, k0 + k) : 0.f;
      bs[k][at] = inside && n0 + at < extent.n ? b(k0 + k, n0 + at) : 0.f;
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k)
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sums[i][j] += as[k][row + i] * bs[k][column + j];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i)
#pragma unroll
    for (int j = 0; j < kSide; ++j)
      if (m0 + row + i < extent.m && n0 + column + j < extent.n) result(m0 + row + i, n0 + column + j, sums[i][j]);
}

template <typename T, GroupedProduct kProduct>
__global__ void __launch_bounds__(kThreads) multiply_rows(GroupedParams params) {
  const RowTile tile = params.tiles[blockIdx.x];
  if (tile.group < 0) return;
  constexpr bool kForward = kProduct == GroupedProduct::forward;
  const T* weight = static_cast<const T*>(params.weight) + tile.group * params.weight_group;
  const Matrix& from = kForward ? params.x : params.y;
  const Matrix& to = kForward ? params.y : params.x;
  const Extent extent{tile.end, kForward ? params.out : params.in, kForward ? params.in : params.out};
  multiply_tile(
      extent, tile.begin, static_cast<std::int64_t>(blockIdx.y) * kTile,
      [&](std::int64_t m, std::int64_t k) { return to_float(from.row<const T>(m)[k]); },
      [&](std::int64_t k, std::int64_t n) {
        return to_float(kForward ? weight[n * params.weight_row + k] : weight[k * params.weight_row + n]);
      },
      [&](std::int64_t m, std::int64_t n, float value) { to.row<T>(m)[n] = from_float<T>(value); });
}

template <typename T, typename G>
__global__ void __launch_bounds__(kThreads) multiply_weights(GroupedParams params) {
  const int group = static_cast<int>(blockIdx.z);
  const std::int32_t begin = params.offsets[group], end = params.offsets[group + 1];
  if (begin == end) return;
  G* weight = static_cast<G*>(params.weight) + group * params.weight_group;
  multiply_tile(
      {params.out, params.in, end - begin}, static_cast<std::int64_t>(blockIdx.y) * kTile,
      static_cast<std::int64_t>(blockIdx.x) * kTile,
      [&](std::int64_t m, std::int64_t k) { return to_float(params.y.row<const T>(begin + k)[m]); },
      [&](std::int64_t k, std::int64_t n) { return to_float(params.x.row<const T>(begin + k)[n]); },
      [&](std::int64_t m, std::int64_t n, float value) {
        G& to = weight[m * params.weight_row + n];
        to = from_float<G>(to_float(to) + value);
      });
}

unsigned tiles_along(std::int64_t size) { return static_cast<unsigned>((size + kTile - 1) / kTile); }

}  // namespace

cudaError_t launch_list_row_tiles(const GroupedParams& params, int rows, RowTile* tiles, cudaStream_t stream) {
  list_tiles<<<1, kListThreads, 0, stream>>>(params, rows, tiles);
  return cudaGetLastError();
}

cudaError_t launch_grouped_plain(GroupedProduct product, const GroupedParams& params, cudaStream_t stream) {
  return with_element(params.element, [&]<typename T>() {
    const auto most_tiles = static_cast<unsigned>(params.most_tiles);
    if (product == GroupedProduct::forward) {
      multiply_rows<T, GroupedProduct::forward>
          <<<dim3(most_tiles, tiles_along(params.out)), kThreads, 0, stream>>>(params);
    } else if (product == GroupedProduct::input_gradient) {
      multiply_rows<T, GroupedProduct::input_gradient>
          <<<dim3(most_tiles, tiles_along(params.in)), kThreads, 0, stream>>>(params);
    } else {
      const dim3 grid(tiles_along(params.in), tiles_along(params.out), static_cast<unsigned>(params.groups));
      with_element(params.weight_element, [&]<typename G>() {
        multiply_weights<T, G><<<grid, kThreads, 0, stream>>>(params);
        return 0;
      });
    }
    return cudaGetLastError();
  });
}

}  // namespace lathe::ops::cuda
