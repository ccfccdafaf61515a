// How dQ leaves the backward kernel: a consumer lays its half of a tile into the staging buffer, a thread of its own
// sends it to the workspace by a bulk copy. Many jobs add to a tile; a semaphore for each half tells what has been
// done.
#pragma once

#include "ops/cuda/mla_sm90/backward_loaders.cuh"
#include "sm90/bulk.cuh"
#include "sm90/semaphore.cuh"

namespace lathe::ops::cuda {

// Deterministic: how many key blocks add to dQ of this query tile before this job does. Runs of key blocks ascend, and
// inside of a run blocks DEscend: all jobs of a run walk side by side, each from its own diagonal on, and the last one
// comes to a tile first.
//
// Nobody waits for ever. Jobs are taken in the order of the list; in it the runs of a group ascend, and the jobs of one
// run in all groups of a section follow each other without a gap. Either a run is one block, so that a job waits for
// earlier jobs of the list only; or these jobs are at most as many as the kernel has blocks, which all run (a
// cooperative launch). Take the first run in the list that is not done. Its jobs are all taken, or will be: by the
// blocks that work on the runs before it, which wait for nothing else. A job of it at tile t waits for one that has
// not added to t yet, so that stands at an earlier tile, or at t with fewer additions before it, or (as a block sends
// the halves of a tile one after the other) at t's other half. Along such a chain (tile, half, additions before) only
// falls: it ends at a job that waits for nobody.
__device__ __forceinline__ int additions_before(const BackwardJob& job, int tile) {
  const int last_query = tile * BackwardTraits::kQueries + BackwardTraits::kQueries - 1;
  // Blocks after this one whose keys are seen in this tile.
  return job.blocks_before_run + min(job.blocks_after, (last_query - job.diagonal) / BackwardTraits::kKeys);
}

// A half of dQ in the workspace, and what of the additions to it has been done.
struct DqHalf {
  float* to = nullptr;
  int* semaphore = nullptr;

  __device__ __forceinline__ DqHalf(const BackwardParams& p, const BackwardJob& job, int tile, int consumer) {
    const int64_t index = (static_cast<int64_t>(job.head) * p.tiles + job.tile + tile) * 2 + consumer;
    to = p.workspace.dq + index * BackwardTraits::kDqHalfFloats;
    semaphore = p.workspace.semaphores + index;
  }
  // Waits until what this thread sent has arrived, and tells the other blocks.
  __device__ __forceinline__ void announce(int value) const {
    sm90::bulk_wait();
    sm90::proxy_fence_global();
    sm90::semaphore_add(semaphore, value);
  }
};

// From the staging buffer, whose turn then passes to the other consumer.
__device__ __forceinline__ void send_half(const BackwardShared& shared, const DqHalf& half, int consumer, bool stores) {
  using Traits = BackwardTraits;
  const uint32_t from = shared.base + Traits::kOffsetStaging;
  if (stores)
    sm90::bulk_store(half.to, from, Traits::kDqHalfBytes);
  else
    sm90::bulk_add(half.to, from, Traits::kDqHalfBytes);
  sm90::bulk_commit();
  sm90::bulk_wait_read();
  sm90::barrier_arrive(shared.barriers.staging_turn(consumer ^ 1));
}

// Adds as the halves come. Who finds nothing to add to stores, so that no zeros have to lie there.
struct AddsInAnyOrder {
  static constexpr int kClaimed = 1, kStored = 2;  // values of the semaphore

  static __device__ __forceinline__ void send(const BackwardShared& shared, const DqHalf& half, int consumer,
                                              uint32_t parity) {
    // Asked ahead of the data: nearly always somebody has stored before.
    const bool stored = sm90::semaphore_value(half.semaphore) >= kStored;
    sm90::barrier_wait(shared.barriers.staging_full(consumer), parity);
    // A claim is made when the data is there, and so waits for nothing.
    const bool first = !stored && atomicCAS(half.semaphore, 0, kClaimed) == 0;
    if (!stored && !first) sm90::semaphore_wait(half.semaphore, kStored);
    sm90::proxy_fence_global();
    send_half(shared, half, consumer, first);
    if (first) half.announce(kStored - kClaimed);
  }
};

// Deterministic: in the order of additions_before, which the semaphore counts; the first stores.
struct AddsInOrder {
  static __device__ __forceinline__ void send(const BackwardShared& shared, const DqHalf& half, int consumer,
                                              uint32_t parity, int before) {
    sm90::semaphore_wait(half.semaphore, before);  // ahead of the data
    sm90::barrier_wait(shared.barriers.staging_full(consumer), parity);
    sm90::proxy_fence_global();
    send_half(shared, half, consumer, before == 0);
    half.announce(1);
  }
};

// Sends one consumer's halves of dQ from the staging buffer to the workspace.
template <bool kDeterministic>
__device__ __forceinline__ void write_dq(const BackwardParams& p, const BackwardShared& shared, int consumer) {
  const BackwardBarriers& barriers = shared.barriers;
  wait_for_preparation();  // it reset the semaphores
  uint32_t parity = 0;
#pragma unroll 1
  for (JobSlot at;; ++at.count) {
    const BackwardJob& job = shared.jobs[at.slot()];
    sm90::barrier_wait(barriers.job_full(at.slot()), at.parity());
    if (job.head < 0) break;
#pragma unroll 1
    for (int tile = first_tile(job.diagonal); tile < end_tile(job.queries); ++tile) {
      const DqHalf half(p, job, tile, consumer);
      if constexpr (kDeterministic)
        AddsInOrder::send(shared, half, consumer, parity, additions_before(job, tile));
      else
        AddsInAnyOrder::send(shared, half, consumer, parity);
      parity ^= 1;
    }
    sm90::barrier_arrive(barriers.job_empty(at.slot()));
  }
  sm90::bulk_wait();
}

}  // namespace lathe::ops::cuda
