// Positions ordered by a small key, stable: by counting. The plan of the permutation, and the order of tokens for the
// embedding's gradient.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lathe::ops::cuda {

// Item i of [0, count) is element (i / columns, i % columns) of `keys`; its bucket is (key >> shift) & mask. The items
// come in the order of `order_in` (or as they are), and keep it inside a bucket.
struct CountingSort {
  const std::int32_t* keys = nullptr;
  std::int64_t keys_stride = 0;  // from row to row
  std::int64_t columns = 1;
  std::int64_t count = 0;
  int shift = 0;
  int mask = -1;
  int buckets = 0;
  const std::int32_t* order_in = nullptr;  // [count] or none
  std::int32_t* counts = nullptr;          // [counting_sort_chunks(count), buckets], scratch
  std::int32_t* starts = nullptr;          // [buckets + 1], written: where each bucket begins
  std::int32_t* order_out = nullptr;       // [count] or none, written: the items in their new order
  std::int32_t* place = nullptr;           // as keys, or none, written: the new place of each item
  std::int64_t place_stride = 0;
};

std::int64_t counting_sort_chunks(std::int64_t count);
// At most this many buckets.
inline constexpr int kMostBuckets = 12 * 1024;
// A key that is no bucket stops the kernel with an error.
cudaError_t launch_counting_sort(const CountingSort& sort, cudaStream_t stream);

}  // namespace lathe::ops::cuda
