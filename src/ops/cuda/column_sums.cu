#include "ops/cuda/column_sums.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kLanes = 16;  // of rows
constexpr int kRowsPerChunk = 256;
constexpr int kThreads = 256;

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
      const float x = to_float(params.x.row<const T>(row)[column]);
      sum += params.y.data == nullptr ? x : x * to_float(params.y.row<const T>(row)[column]) * params.scale[row];
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= params.width) return;
  for (int lane = 1; lane < kLanes; ++lane) sum += parts[lane][threadIdx.x];
  params.partials[blockIdx.y * params.width + column] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) add_chunks(ColumnSums params, int chunks) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= params.width) return;
  float sum = 0;
#pragma unroll 8
  for (int chunk = 0; chunk < chunks; ++chunk) sum += params.partials[chunk * params.width + column];
  T* to = static_cast<T*>(params.sums) + column;
  *to = from_float<T>(to_float(*to) + sum);
}

}  // namespace

std::int64_t column_sum_chunks(std::int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

cudaError_t launch_column_sums(const ColumnSums& params, cudaStream_t stream) {
  if (params.rows == 0 || params.width == 0) return cudaSuccess;
  const auto chunks = static_cast<unsigned>(column_sum_chunks(params.rows));
  const dim3 grid(static_cast<unsigned>((params.width + kColumns - 1) / kColumns), chunks);
  with_element(params.element, [&]<typename T>() {
    sum_chunk<T><<<grid, dim3(kColumns, kLanes), 0, stream>>>(params);
    return 0;
  });
  const cudaError_t result = cudaGetLastError();
  if (result != cudaSuccess) return result;
  with_element(params.sums_element, [&]<typename T>() {
    add_chunks<T><<<static_cast<unsigned>((params.width + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        params, static_cast<int>(chunks));
    return 0;
  });
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
