#include "ops/cuda/column_sums.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kLanes = 16;  // of rows
constexpr int kRowsPerChunk = 256;

// Block (column group, chunk): lane y takes every kLanes-th row of the chunk.
template <typename T>
__global__ void __launch_bounds__(kColumns* kLanes) sum_chunk(ColumnSums params) {
  __shared__ float parts[kLanes][kColumns];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * kRowsPerChunk;
  float sum = 0;
  if (column < params.width) {
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.y); i < kRowsPerChunk; i += kLanes) {
      const std::int64_t row = begin + i;
      if (row >= params.rows) break;
      sum += to_float(params.x.row<const T>(row)[column]);
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= params.width) return;
  for (int lane = 1; lane < kLanes; ++lane) sum += parts[lane][threadIdx.x];
  params.partials[blockIdx.y * params.width + column] = sum;
}

// Block (column group): lane y takes every kLanes-th chunk.
template <typename T>
__global__ void __launch_bounds__(kColumns* kLanes) add_chunks(ColumnSums params, int chunks) {
  __shared__ float parts[kLanes][kColumns];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  float sum = 0;
  if (column < params.width) {
#pragma unroll 8
    for (int chunk = static_cast<int>(threadIdx.y); chunk < chunks; chunk += kLanes)
      sum += params.partials[chunk * params.width + column];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= params.width) return;
  for (int lane = 1; lane < kLanes; ++lane) sum += parts[lane][threadIdx.x];
  T* to = static_cast<T*>(params.sums) + column;
  *to = from_float<T>(to_float(*to) + sum);
}

unsigned column_groups(std::int64_t width) { return static_cast<unsigned>((width + kColumns - 1) / kColumns); }

}  // namespace

std::int64_t column_sum_chunks(std::int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

cudaError_t launch_column_sums(const ColumnSums& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  const std::int64_t chunks = column_sum_chunks(params.rows);
  const dim3 grid(column_groups(params.width), static_cast<unsigned>(chunks));
  with_element(params.element, [&]<typename T>() {
    sum_chunk<T><<<grid, dim3(kColumns, kLanes), 0, stream>>>(params);
    return 0;
  });
  const cudaError_t result = cudaGetLastError();
  return result != cudaSuccess ? result : launch_add_chunks(params, chunks, stream);
}

cudaError_t launch_add_chunks(const ColumnSums& params, std::int64_t chunks, cudaStream_t stream) {
  if (chunks == 0 || params.width == 0) return cudaSuccess;
  with_element(params.sums_element, [&]<typename T>() {
    add_chunks<T><<<column_groups(params.width), dim3(kColumns, kLanes), 0, stream>>>(params, static_cast<int>(chunks));
    return 0;
  });
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
