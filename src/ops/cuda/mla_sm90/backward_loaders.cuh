// The loading side of the backward kernel: four warps, of each one thread. Warp 0 hands out jobs and loads K, Q, lse
// and delta; warp 2 loads dO and V (all loads in one thread do not fit 24 registers); warps 1 and 3 send dQ out.
#pragma once

#include "ops/cuda/mla_sm90/backward_barriers.cuh"
#include "ops/cuda/mla_sm90/backward_jobs.cuh"
#include "sm90/bulk.cuh"
#include "sm90/control.cuh"
#include "sm90/semaphore.cuh"
#include "sm90/tma.cuh"

namespace lathe::ops::cuda {

struct BackwardShared {
  uint32_t base = 0;
  BackwardJob* jobs = nullptr;  // the slots
  BackwardBarriers barriers;
};

// Position in the two job slots.
struct JobSlot {
  int count = 0;
  __device__ __forceinline__ int slot() const { return count & 1; }
  __device__ __forceinline__ uint32_t parity() const { return (count >> 1) & 1; }
};

// What the preparing kernel wrote is visible from here on, to bulk copies too. Until then only the call's inputs may be
// read and nothing may be written.
__device__ __forceinline__ void wait_for_preparation() {
  sm90::wait_for_previous_kernel();
  sm90::proxy_fence_global();
}

// Packed sequences: rows [valid, rows) of each panel come from the next sequence. Nothing of them may be seen, not even
// times 0, which NaN survives: they are overwritten with zeros, whose bytes count on `full`. `tail` has seen the tile.
template <int kPanels, int kRows>
__device__ __forceinline__ void zero_tail(const BackwardParams& p, uint32_t tile, int valid, uint32_t full) {
  using Traits = BackwardTraits;
  const int bytes = (kRows - valid) * Traits::kRowBytes;
#pragma unroll 1
  for (int panel = 0; panel < kPanels; ++panel)
    sm90::bulk_load(tile + (panel * kRows + valid) * Traits::kRowBytes, p.workspace.zeros, bytes, full);
}

class KeyAndQueryLoader {
 public:
  using Traits = BackwardTraits;

  __device__ __forceinline__ KeyAndQueryLoader(const BackwardMaps& maps, const BackwardParams& p,
                                               const BackwardShared& shared)
      : maps_(maps), p_(p), shared_(shared) {}

  template <bool kPacked>
  __device__ __forceinline__ void run() {
    if constexpr (kPacked) wait_for_preparation();  // it made the list of jobs
    int index = static_cast<int>(blockIdx.x);
#pragma unroll 1
    for (JobSlot at;; ++at.count) {
      BackwardJob& job = shared_.jobs[at.slot()];
      sm90::barrier_wait(shared_.barriers.job_empty(at.slot()), at.parity() ^ 1);
      const int key_blocks = kPacked ? *p_.workspace.job_count : p_.schedule.key_blocks;
      job.head = -1;
      if (index < sm90::recompute(key_blocks) * p_.schedule.groups * p_.schedule.parts)
        make_job<kPacked>(p_, key_blocks, index, job);
      const bool done = job.head < 0;
      sm90::barrier_arrive(shared_.barriers.job_full(at.slot()));
      if (done) break;
#pragma unroll 1
      for (int tile = first_tile(job.diagonal); tile < end_tile(job.queries); ++tile) {
        load_queries<kPacked>(job, tile);
        // The place of the keys is free later than that of the first queries.
        if (tile == first_tile(job.diagonal)) load_keys<kPacked>(job, at.count);
        if (!kPacked && step_ == 0) wait_for_preparation();
        load_stats(job, tile);
        ++step_;
      }
      if (kPacked && job.queries == 0) load_keys<kPacked>(job, at.count);  // as everybody counts on them
      // As late as possible: a job taken early waits behind a long one. And nobody holds two jobs of a run, of which
      // one may wait for the other: see additions_before.
      at.count = sm90::recompute(at.count);
      if (sm90::semaphore_read(p_.workspace.next_job) < end_of_run<kPacked>(p_, shared_.jobs[at.slot()]))
        sm90::barrier_wait(shared_.barriers.job_empty(at.slot()), at.parity());
      index = atomicAdd(p_.workspace.next_job, 1);
    }
  }

 private:
  __device__ __forceinline__ int stage() const { return step_ & 1; }

  template <bool kPacked>
  __device__ __forceinline__ void load_keys(const BackwardJob& job, int count) {
    const BackwardBarriers& barriers = shared_.barriers;
    sm90::barrier_wait(barriers.k_empty(), (count & 1) ^ 1);
    const uint32_t keys = shared_.base + Traits::kOffsetK;
    const bool tail = kPacked && job.keys < Traits::kKeys;
    const uint32_t arrived = tail ? barriers.tail(0) : barriers.k_full();
    sm90::barrier_arrive_expect(arrived, Traits::kKBytes);
    sm90::tma_load(keys, &maps_.k_nope, arrived, {job.head, job.key_token, 0, job.batch});
    sm90::tma_load(keys + Traits::kLastNopePanelInK * Traits::kKeyPanel, &maps_.k_nope, arrived,
                   {job.head, job.key_token, 1, job.batch});
    sm90::tma_load(keys + Traits::kRopePanelInK * Traits::kKeyPanel, &maps_.k_pe, arrived,
                   {0, job.key_token, 0, job.batch});
    if (tail) {
      wait_for_tail();
      sm90::barrier_arrive_expect(barriers.k_full(), 3 * (Traits::kKeys - job.keys) * Traits::kRowBytes);
      zero_tail<3, Traits::kKeys>(p_, keys, job.keys, barriers.k_full());
    }
  }

  template <bool kPacked>
  __device__ __forceinline__ void load_queries(const BackwardJob& job, int tile) {
    const BackwardBarriers& barriers = shared_.barriers;
    const uint32_t full = barriers.q_full(stage());
    const uint32_t queries = shared_.base + Traits::kOffsetQ + stage() * Traits::kQBytes;
    const int valid = job.queries - tile * Traits::kQueries;
    const bool tail = kPacked && valid < Traits::kQueries;
    sm90::barrier_wait(barriers.q_empty(stage()), ((step_ >> 1) & 1) ^ 1);
    const uint32_t arrived = tail ? barriers.tail(0) : full;
    sm90::barrier_arrive_expect(arrived, Traits::kQBytes + (tail ? 0 : Traits::kStatsBytes));
    const sm90::TileCoordinate from{job.head, job.query_token + tile * Traits::kQueries, 0, job.batch};
    sm90::tma_load(queries, &maps_.q_nope, arrived, from);
    sm90::tma_load(queries + Traits::kNopePanels * Traits::kQueryPanel, &maps_.q_pe, arrived, from);
    if (tail) {
      wait_for_tail();
      sm90::barrier_arrive_expect(full, 3 * (Traits::kQueries - valid) * Traits::kRowBytes + Traits::kStatsBytes);
      zero_tail<3, Traits::kQueries>(p_, queries, valid, full);
    }
  }

  // On the barrier of the queries, which expects it.
  __device__ __forceinline__ void load_stats(const BackwardJob& job, int tile) const {
    const int64_t stats = static_cast<int64_t>(job.head) * p_.tiles + job.tile + tile;
    sm90::bulk_load(shared_.base + Traits::kOffsetStats + stage() * Traits::kStatsBytes,
                    p_.workspace.stats + stats * Traits::kStatsFloats, Traits::kStatsBytes,
                    shared_.barriers.q_full(stage()));
  }

  __device__ __forceinline__ void wait_for_tail() {
    sm90::barrier_wait(shared_.barriers.tail(0), tail_parity_);
    tail_parity_ ^= 1;
  }

  const BackwardMaps& maps_;
  const BackwardParams& p_;
  const BackwardShared& shared_;
  int step_ = 0;  // query tiles of all jobs
  uint32_t tail_parity_ = 0;
};
static_assert(BackwardTraits::kNopePanels == 2 && BackwardTraits::kValuePanels == 2);

class OutputGradientAndValueLoader {
 public:
  using Traits = BackwardTraits;

  __device__ __forceinline__ OutputGradientAndValueLoader(const BackwardMaps& maps, const BackwardParams& p,
                                                          const BackwardShared& shared)
      : maps_(maps), p_(p), shared_(shared) {}

  template <bool kPacked>
  __device__ __forceinline__ void run() {
    if constexpr (kPacked) wait_for_preparation();  // it made the zeros
#pragma unroll 1
    for (JobSlot at;; ++at.count) {
      const BackwardJob& job = shared_.jobs[at.slot()];
      sm90::barrier_wait(shared_.barriers.job_full(at.slot()), at.parity());
      if (job.head < 0) break;
#pragma unroll 1
      for (int tile = first_tile(job.diagonal); tile < end_tile(job.queries); ++tile) {
        load_output_gradient<kPacked>(job, tile);
        if (tile == first_tile(job.diagonal)) load_values<kPacked>(job, at.count);
      }
      if (kPacked && job.queries == 0) load_values<kPacked>(job, at.count);
      sm90::barrier_arrive(shared_.barriers.job_empty(at.slot()));
    }
  }

 private:
  template <bool kPacked>
  __device__ __forceinline__ void load_values(const BackwardJob& job, int count) {
    sm90::barrier_wait(shared_.barriers.v_empty(), (count & 1) ^ 1);
    load<kPacked, Traits::kKeys>(&maps_.v, Traits::kOffsetV, {job.head, job.key_token, 0, job.batch}, job.keys,
                                 shared_.barriers.v_full());
  }

  template <bool kPacked>
  __device__ __forceinline__ void load_output_gradient(const BackwardJob& job, int tile) {
    const int stage = step_ & 1;
    const int row = tile * Traits::kQueries;
    sm90::barrier_wait(shared_.barriers.do_empty(stage), ((step_ >> 1) & 1) ^ 1);
    load<kPacked, Traits::kQueries>(&maps_.dout, Traits::kOffsetDo + stage * Traits::kDoBytes,
                                    {job.head, job.query_token + row, 0, job.batch}, job.queries - row,
                                    shared_.barriers.do_full(stage));
    ++step_;
  }

  // A tile of kRows rows and two panels, of which `valid` rows (or all) are the sequence's.
  template <bool kPacked, int kRows>
  __device__ __forceinline__ void load(const CUtensorMap* map, int offset, const sm90::TileCoordinate& from, int valid,
                                       uint32_t full) {
    constexpr int kPanels = Traits::kValuePanels;
    const uint32_t to = shared_.base + offset;
    const bool tail = kPacked && valid < kRows;
    const uint32_t arrived = tail ? shared_.barriers.tail(1) : full;
    sm90::barrier_arrive_expect(arrived, kPanels * kRows * Traits::kRowBytes);
    sm90::tma_load(to, map, arrived, from);
    if (tail) {
      sm90::barrier_wait(arrived, tail_parity_);
      tail_parity_ ^= 1;
      sm90::barrier_arrive_expect(full, kPanels * (kRows - valid) * Traits::kRowBytes);
      zero_tail<kPanels, kRows>(p_, to, valid, full);
    }
  }

  const BackwardMaps& maps_;
  const BackwardParams& p_;
  const BackwardShared& shared_;
  int step_ = 0;
  uint32_t tail_parity_ = 0;
};

// Sends one consumer's halves of dQ from the staging buffer to the workspace. The first of additions_before stores, so
// that only jobs in parts need zeros before; the others add as they come, once it has, or (deterministic) in that
// order. Converting blocks hear of each job when all of it has arrived. The wait for that is at once: the first turn of
// the next job is two steps and the stores of this one away.
template <bool kDeterministic>
__device__ __forceinline__ void write_dq(const BackwardParams& p, const BackwardShared& shared, int consumer) {
  using Traits = BackwardTraits;
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
      const int64_t half = (static_cast<int64_t>(job.head) * p.tiles + job.tile + tile) * 2 + consumer;
      int* const semaphore = p.workspace.semaphores + half;
      int before = additions_before(job, tile);
      if (!kDeterministic && p.schedule.in_parts()) ++before;  // the zeros
      sm90::semaphore_wait(semaphore, kDeterministic ? before : min(before, 1));
      sm90::proxy_fence_global();
      sm90::barrier_wait(barriers.staging_full(consumer), parity);
      parity ^= 1;
      float* const to = p.workspace.dq + half * Traits::kDqHalfFloats;
      const uint32_t from = shared.base + Traits::kOffsetStaging;
      if (before == 0)
        sm90::bulk_store(to, from, Traits::kDqHalfBytes);
      else
        sm90::bulk_add(to, from, Traits::kDqHalfBytes);
      sm90::bulk_commit();
      sm90::bulk_wait_read();
      sm90::barrier_arrive(barriers.staging_turn(consumer ^ 1));
      if (kDeterministic || before == 0) {
        sm90::bulk_wait();
        sm90::proxy_fence_global();
        sm90::semaphore_add(semaphore, 1);
      }
    }
    const int group = job.batch * p.heads + job.head;
    sm90::barrier_arrive(barriers.job_empty(at.slot()));
    if (p.converting_blocks > 0) {
      sm90::bulk_wait();
      sm90::proxy_fence_global();
      sm90::semaphore_add(p.workspace.groups_done + group * kGroupDoneStride, 1);
    }
  }
  sm90::bulk_wait();
}

}  // namespace lathe::ops::cuda
