#include "ops/cuda/counting_sort.h"

namespace lathe::ops::cuda {
namespace {

constexpr int kChunk = 256;  // items of one warp
constexpr int kScanThreads = 1024;

// Calls visit(item, bucket, lanes before this one with the same bucket, all lanes with it) for the chunk's items in
// steps of a warp, on every lane; the bucket is -1 where there is no item left.
template <typename Visit>
__device__ __forceinline__ void for_chunk(const CountingSort& sort, Visit&& visit) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int step = 0; step < kChunk; step += 32) {
    const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kChunk + step + lane;
    const bool present = at < sort.count;
    int item = 0, bucket = -1;
    if (present) {
      item = sort.order_in != nullptr ? sort.order_in[at] : static_cast<int>(at);
      const std::int32_t key = sort.keys[item / sort.columns * sort.keys_stride + item % sort.columns];
      bucket = (key >> sort.shift) & sort.mask;
      if (bucket < 0 || bucket >= sort.buckets) __trap();
    }
    const unsigned same = __match_any_sync(~0u, bucket);
    visit(item, bucket, __popc(same & ((1u << lane) - 1)), same);
    __syncwarp();
  }
}

__global__ void __launch_bounds__(32) count_chunk(CountingSort sort) {
  extern __shared__ int counters[];
  for (int i = static_cast<int>(threadIdx.x); i < sort.buckets; i += 32) counters[i] = 0;
  __syncwarp();
  for_chunk(sort, [&](int, int bucket, int before, unsigned same) {
    if (bucket >= 0 && before == 0) counters[bucket] += __popc(same);
  });
  std::int32_t* counts = sort.counts + static_cast<std::int64_t>(blockIdx.x) * sort.buckets;
  for (int i = static_cast<int>(threadIdx.x); i < sort.buckets; i += 32) counts[i] = counters[i];
}

// Turns the counts of chunks into those of all chunks before, and the buckets' totals into starts. One block.
__global__ void __launch_bounds__(kScanThreads) scan_chunks(CountingSort sort, int chunks) {
  __shared__ int warp_totals[kScanThreads / 32];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  int base = 0;  // items of the buckets before these
  for (int first = 0; first < sort.buckets; first += kScanThreads) {
    const int bucket = first + static_cast<int>(threadIdx.x);
    int total = 0;
    if (bucket < sort.buckets) {
      constexpr int kAtOnce = 8;
      for (int chunk = 0; chunk < chunks; chunk += kAtOnce) {
        int counts[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i)
          counts[i] =
              chunk + i < chunks ? sort.counts[(chunk + i) * static_cast<std::int64_t>(sort.buckets) + bucket] : 0;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          if (chunk + i < chunks) sort.counts[(chunk + i) * static_cast<std::int64_t>(sort.buckets) + bucket] = total;
          total += counts[i];
        }
      }
    }
    int sum = total;  // of the lanes up to this one
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(~0u, sum, distance);
      if (lane >= distance) sum += other;
    }
    __syncthreads();
    if (lane == 31) warp_totals[warp] = sum;
    __syncthreads();
    int before = base;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w < warp) before += warp_totals[w];
      base += warp_totals[w];
    }
    if (bucket < sort.buckets) sort.starts[bucket] = before + sum - total;
  }
  if (threadIdx.x == 0) sort.starts[sort.buckets] = base;
}

__global__ void __launch_bounds__(32) place_chunk(CountingSort sort) {
  extern __shared__ int next[];
  const std::int32_t* counts = sort.counts + static_cast<std::int64_t>(blockIdx.x) * sort.buckets;
  for (int i = static_cast<int>(threadIdx.x); i < sort.buckets; i += 32) next[i] = sort.starts[i] + counts[i];
  __syncwarp();
  for_chunk(sort, [&](int item, int bucket, int before, unsigned same) {
    const int first = bucket >= 0 ? next[bucket] : 0;
    __syncwarp();
    if (bucket < 0) return;
    if (before == 0) next[bucket] = first + __popc(same);
    if (sort.order_out != nullptr) sort.order_out[first + before] = item;
    if (sort.place != nullptr)
      sort.place[item / sort.columns * sort.place_stride + item % sort.columns] = first + before;
  });
}

}  // namespace

std::int64_t counting_sort_chunks(std::int64_t count) { return (count + kChunk - 1) / kChunk; }

cudaError_t launch_counting_sort(const CountingSort& sort, cudaStream_t stream) {
  if (sort.buckets > kMostBuckets) return cudaErrorInvalidValue;
  const auto chunks = static_cast<unsigned>(counting_sort_chunks(sort.count));
  const std::size_t shared = static_cast<std::size_t>(sort.buckets) * sizeof(int);
  if (chunks > 0) count_chunk<<<chunks, 32, shared, stream>>>(sort);
  scan_chunks<<<1, kScanThreads, 0, stream>>>(sort, static_cast<int>(chunks));
  if (chunks > 0) place_chunk<<<chunks, 32, shared, stream>>>(sort);
  return cudaGetLastError();
}

}  // namespace lathe::ops::cuda
