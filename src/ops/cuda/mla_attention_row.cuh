// What the kernels of the plain attention share: where a row lies, and products of rows.
#pragma once

#include "ops/cuda/mla_attention_launch.h"
#include "ops/cuda/vectors.cuh"

namespace lathe::ops::cuda {

// Queries or keys that a block's threads look at together, one each.
inline constexpr int kAttentionThreads = 128;

// A query (or key) row of the call: its sequence, and its index there.
struct AttentionRow {
  std::int64_t batch = 0;
  std::int64_t token = 0;  // in the tensor
  std::int64_t index = 0;  // in the sequence
  std::int64_t q_begin = 0, q_count = 0, k_begin = 0, k_count = 0;

  // The first keys of the sequence, as many as query `query` sees.
  __device__ std::int64_t visible(std::int64_t query, bool causal) const {
    if (!causal) return k_count;
    const std::int64_t count = query + 1 + k_count - q_count;
    return count < 0 ? 0 : count > k_count ? k_count : count;
  }
  // The first query that sees key `key`; those after it do too.
  __device__ std::int64_t first_query(std::int64_t key, bool causal) const {
    if (!causal) return 0;
    const std::int64_t first = key - (k_count - q_count);
    return first < 0 ? 0 : first;
  }
};

template <bool kQuery>
__device__ AttentionRow find_row(const AttentionParams& params, std::int64_t row) {
  AttentionRow at;
  if (params.cu_seqlens_q == nullptr) {
    const std::int64_t length = kQuery ? params.s_q : params.s_k;
    at.batch = row / length;
    at.token = at.index = row % length;
    at.q_count = params.s_q;
    at.k_count = params.s_k;
    return at;
  }
  // The last sequence that begins at or before the row: the others that begin there are empty.
  const std::int32_t* starts = kQuery ? params.cu_seqlens_q : params.cu_seqlens_k;
  std::int64_t low = 0, high = params.sequences;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (starts[middle] <= row ? low : high) = middle;
  }
  at.token = row;
  at.index = row - starts[low];
  at.q_begin = params.cu_seqlens_q[low];
  at.q_count = params.cu_seqlens_q[low + 1] - at.q_begin;
  at.k_begin = params.cu_seqlens_k[low];
  at.k_count = params.cu_seqlens_k[low + 1] - at.k_begin;
  return at;
}

template <typename T>
__device__ __forceinline__ float dot(const float* x, const T* y, int count) {
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += x[i] * to_float(y[i]);
  return sum;
}

template <typename T>
__device__ __forceinline__ void load_row(const T* from, int count, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAttentionThreads) to[i] = to_float(from[i]);
}

template <typename T>
__device__ __forceinline__ void store_row(const float* from, int count, T* to) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAttentionThreads) to[i] = from_float<T>(from[i]);
}

// sums[i] += the sum over j of factors[j] * rows(j)[i]; a thread takes the elements that it alone reads and writes.
template <typename Rows>
__device__ __forceinline__ void add_rows(const float* factors, int rows_count, Rows&& rows, int count, float* sums) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAttentionThreads) {
    float sum = sums[i];
    for (int j = 0; j < rows_count; ++j) sum += factors[j] * to_float(rows(j)[i]);
    sums[i] = sum;
  }
}

__device__ __forceinline__ void clear_row(float* row, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kAttentionThreads) row[i] = 0;
}

}  // namespace lathe::ops::cuda
