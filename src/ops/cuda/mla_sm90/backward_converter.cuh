// dQ to bf16 rows inside of the main kernel, in place of a pass over memory after it: by blocks of their own while the
// others compute, and by the computing blocks' consumers when they have no more jobs.
//
// Each writer of dQ adds to its group's counter when all that it sent of a job has arrived: a group is done at two
// additions a key block. Halves of tiles, in the order of the groups and so of the sections, are handed out by one
// counter.
//
// Nobody waits for ever. Nobody waits for a converting block, nor for a consumer that has left the loop over jobs, and
// the writers count a job without waiting for anybody but the copy engine. So jobs are done as if nobody converted
// (additions_before), hence all groups' counters get there, and with them whoever converts. All blocks of the launch
// are on the device at once. The counter of halves only grows, and who claims some goes through all of them.
#pragma once

#include "ops/cuda/mla_sm90/backward_dq.cuh"
#include "ops/cuda/mla_sm90/backward_loaders.cuh"
#include "sm90/barrier.cuh"
#include "sm90/shared_memory.cuh"

namespace lathe::ops::cuda {

// The halves of all groups in one row.
template <bool kPacked>
struct BackwardDqList {
  const BackwardParams& p;

  __device__ __forceinline__ int group_halves() const { return 2 * (kPacked ? p.tiles : p.sequence_tiles); }
  __device__ __forceinline__ int count() const { return p.schedule.groups * group_halves(); }
  __device__ __forceinline__ int group(int item) const { return item / group_halves(); }
  __device__ __forceinline__ BackwardDqHalf half(int item) const {
    const int group_of_it = group(item);
    const int rest = item - group_of_it * group_halves();
    if constexpr (kPacked) {
      return {p, group_of_it, rest / 2, rest % 2};
    } else {
      const int batch = group_of_it / p.heads;
      return {p, group_of_it - batch * p.heads, batch * p.sequence_tiles + rest / 2, rest % 2};
    }
  }
  // All of the group's dQ is there: for this thread's bulk loads and plain loads that come after. Whoever waits must
  // not disturb those who compute.
  __device__ __forceinline__ void wait_for(int group) const {
    const int signals = 2 * (kPacked ? *p.workspace.job_count : p.schedule.key_blocks);
    const int* const done = p.workspace.groups_done + group * kGroupDoneStride;
    while (sm90::semaphore_read(done) < signals) __nanosleep(400);
    sm90::proxy_fence_global();
  }
};

// One thread loads halves into a ring, as many ahead as it holds; two warpgroups take them in turns.
template <bool kPacked>
class BackwardConverter {
 public:
  using Traits = BackwardTraits;

  __device__ __forceinline__ BackwardConverter(const BackwardParams& p, const BackwardShared& shared)
      : p_(p), base_(shared.base), items_(reinterpret_cast<int*>(shared.jobs)) {}

  // One thread, in place of the computing blocks' barriers; a block barrier must follow.
  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      sm90::barrier_init(full(i), 1);
      // From the warpgroup that reads it.
      sm90::barrier_init(empty(i), sm90::kAllThreadsArrive ? 128 : 4);
    }
    sm90::barrier_init_fence();
  }

  // One thread.
  __device__ __forceinline__ void load() {
    wait_for_preparation();
    const BackwardDqList<kPacked> list{p_};
    const int count = list.count();
    int seen = -1;
    int run = run_at(0, count);
    int next = atomicAdd(p_.workspace.next_half, run);
#pragma unroll 1
    while (next < count) {
      const int end = min(next + run, count);
      int item = next;
      // Claimed early: beside the additions to dQ an answer takes microseconds.
      run = run_at(item, count);
      next = atomicAdd(p_.workspace.next_half, run);
#pragma unroll 1
      for (; item < end; ++item) {
        const int group = list.group(item);
        if (group != seen) list.wait_for(group);
        seen = group;
        acquire();
        items_[stage_] = item;
        sm90::barrier_arrive_expect(full(stage_), Traits::kDqHalfBytes);
        sm90::bulk_load_once(base_ + stage_ * Traits::kDqHalfBytes, list.half(item).in(p_), Traits::kDqHalfBytes,
                             full(stage_));
        advance();
      }
    }
    // One end for each warpgroup.
#pragma unroll 1
    for (int i = 0; i < kReaders; ++i) {
      acquire();
      items_[stage_] = -1;
      sm90::barrier_arrive(full(stage_));
      advance();
    }
  }

  // A warpgroup: every second half of the ring.
  __device__ __forceinline__ void convert(int reader) {
    sm90::wait_for_previous_kernel();  // packed: the tiles' rows are its work
    const BackwardDqList<kPacked> list{p_};
    const int thread = static_cast<int>(threadIdx.x % 128);
    stage_ = reader;
#pragma unroll 1
    while (true) {
      sm90::barrier_wait(full(stage_), round_);
      const int item = __shfl_sync(~0u, items_[stage_], 0);
      if (item < 0) break;
      float4 values[kDqFragments];
      const uint32_t from = base_ + stage_ * Traits::kDqHalfBytes + 16 * thread;
#pragma unroll
      for (int i = 0; i < kDqFragments; ++i) {
        const uint4 x = sm90::load_shared_uint4(from + 2048 * i);
        values[i] = make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w));
      }
      // What comes in its place is asked for after this arrival, which follows the reads through the same queue.
      __syncwarp();
      if (sm90::kAllThreadsArrive || thread % 32 == 0) sm90::barrier_arrive(empty(stage_));
      const BackwardDqHalf at = list.half(item);
      if (at.rows > 0) store_dq(p_, at, thread, values);
#pragma unroll
      for (int i = 0; i < kReaders; ++i) advance();
    }
  }

 private:
  static constexpr int kStages = Traits::kOffsetStats / Traits::kDqHalfBytes;
  static constexpr int kReaders = Traits::kConsumers;
  static_assert(2 * kStages <= Traits::kBarriers && 4 * kStages <= Traits::kJobSlots * Traits::kJobBytes);

  // Halves that are claimed at once: fewer at the end, when all blocks take part.
  static __device__ __forceinline__ int run_at(int item, int count) { return max(1, min(8, (count - item) / 64)); }

  __device__ __forceinline__ uint32_t full(int stage) const { return base_ + Traits::kOffsetBarriers + 16 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(stage) + 8; }
  // The stage is free: for the loader.
  __device__ __forceinline__ void acquire() const { sm90::barrier_wait(empty(stage_), round_ ^ 1); }
  __device__ __forceinline__ void advance() {
    if (++stage_ < kStages) return;
    stage_ = 0;
    round_ ^= 1;
  }

  const BackwardParams& p_;
  const uint32_t base_;
  int* const items_;
  int stage_ = 0;
  uint32_t round_ = 0;  // parity
};

// What is left when a block has no more jobs: a warp a half, 16 rows after 16 rows.
template <bool kPacked>
__device__ __forceinline__ void convert_rest(const BackwardParams& p) {
  sm90::wait_for_previous_kernel();
  const BackwardDqList<kPacked> list{p};
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  while (true) {
    int item = 0;
    if (lane == 0) item = atomicAdd(p.workspace.next_half, 1);
    item = __shfl_sync(~0u, item, 0);
    if (item >= list.count()) break;
    if (lane == 0) list.wait_for(list.group(item));
    __syncwarp();
    sm90::proxy_fence_global();
    const BackwardDqHalf at = list.half(item);
    if (at.rows <= 0) continue;
    constexpr int kAtOnce = 2;
#pragma unroll 1
    for (int warp = 0; warp < 4; warp += kAtOnce) {
      float4 values[kAtOnce][kDqFragments];
#pragma unroll
      for (int w = 0; w < kAtOnce; ++w) load_dq(p, at, 32 * (warp + w) + lane, values[w]);
#pragma unroll
      for (int w = 0; w < kAtOnce; ++w) store_dq(p, at, 32 * (warp + w) + lane, values[w]);
    }
  }
}

}  // namespace lathe::ops::cuda
