// The computing side of the backward kernel: a warpgroup that owns 64 keys of a job. For a tile of 64 queries
//   S^T = K Q^T;  P = exp2(scale S^T - lse), rounded to bf16, stays in registers as the first operand of dV += P dO
//   dP^T = V dO^T;  dS = P (dP^T - delta) goes to shared memory, where both consumers read it
//   dQ of the step before (96 of its columns, over all 128 keys) and dK += dS Q run together; dQ leaves under dK
// Keys are rows everywhere: a thread has 2 keys and 16 queries of a tile, and lse and delta come by column.
#pragma once

#include "ops/cuda/mla_sm90/backward_loaders.cuh"
#include "sm90/control.cuh"
#include "sm90/shared_memory.cuh"
#include "sm90/wgmma.cuh"

namespace lathe::ops::cuda {

template <bool kDeterministic>
class BackwardConsumer {
 public:
  using Traits = BackwardTraits;

  __device__ __forceinline__ BackwardConsumer(const BackwardMaps& maps, const BackwardParams& p,
                                              const BackwardShared& shared, int consumer)
      : maps_(maps),
        p_(p),
        shared_(shared),
        barriers_(shared.barriers),
        consumer_(consumer),
        k_rows_(sm90::descriptor_k_major(shared.base + Traits::kOffsetK + consumer * Traits::kConsumerRows)),
        v_rows_(sm90::descriptor_k_major(shared.base + Traits::kOffsetV + consumer * Traits::kConsumerRows)),
        k_columns_(consumer == 0 ? sm90::descriptor_mn_major(shared.base + Traits::kOffsetK,
                                                             Traits::kLastNopePanelInK * Traits::kKeyPanel)
                                 : sm90::descriptor_mn_major(
                                       shared.base + Traits::kOffsetK + Traits::kRopePanelInK * Traits::kKeyPanel,
                                       Traits::kKeyPanel + kQuarterBytes)),
        q_rows_(sm90::descriptor_k_major(shared.base + Traits::kOffsetQ)),
        q_columns_(sm90::descriptor_mn_major(shared.base + Traits::kOffsetQ, Traits::kQueryPanel)),
        do_rows_(sm90::descriptor_k_major(shared.base + Traits::kOffsetDo)),
        do_columns_(sm90::descriptor_mn_major(shared.base + Traits::kOffsetDo, Traits::kQueryPanel)),
        ds_rows_(sm90::descriptor_k_major(shared.base + Traits::kOffsetDs + consumer * Traits::kConsumerRows)),
        ds_columns_(sm90::descriptor_mn_major(shared.base + Traits::kOffsetDs, Traits::kKeyPanel)) {}

  __device__ __forceinline__ void run() {
#pragma unroll 1
    for (JobSlot at;; ++at.count) {
      // The last job's results have been read from shared memory, and its slot by all threads.
      if (leads()) sm90::bulk_wait_read();
      sync();
      if ((sm90::kAllThreadsArrive || leads()) && at.count > 0)
        sm90::barrier_arrive(barriers_.job_empty(at.slot() ^ 1));
      sm90::barrier_wait(barriers_.job_full(at.slot()), at.parity());
      const BackwardJob& job = shared_.jobs[at.slot()];
      // Equal in all lanes, and now ptxas knows.
      if (__shfl_sync(~0u, job.head, 0) < 0) break;
      const int diagonal = __shfl_sync(~0u, job.diagonal, 0);
      const int end = __shfl_sync(~0u, end_tile(job.queries), 0);
      set_visible(diagonal, __shfl_sync(~0u, job.keys, 0));
#pragma unroll
      for (float& x : dk_) x = 0;
#pragma unroll
      for (float& x : dv_) x = 0;
      const uint32_t parity = at.count & 1;
      sm90::barrier_wait(barriers_.k_full(), parity);
      int tile = first_tile(diagonal);
      if (tile < end) {
        // On the diagonal no query of the first tile sees the second consumer's keys.
        if (consumer_ == 1 && diagonal >= 0)
          masked_step(parity);
        else
          step<true>(tile, parity);
#pragma unroll 1
        while (++tile < end) step<false>(tile, parity);
        release(barriers_.v_empty());
        last_dq();
      } else {
        sm90::barrier_wait(barriers_.v_full(), parity);
        release(barriers_.v_empty());
        release(barriers_.k_empty());
      }
      store(job);
    }
    if (leads()) sm90::bulk_wait();
  }

 private:
  static constexpr int kQuarterBytes = 64;  // 32 columns of a panel

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x & 31); }
  static __device__ __forceinline__ int thread() { return static_cast<int>(threadIdx.x & 127); }
  static __device__ __forceinline__ bool leads() { return thread() == 0; }
  // The first of this thread's two keys among the consumer's 64; the other is 8 further on.
  static __device__ __forceinline__ int first_row() { return thread() / 32 * 16 + lane() / 4; }
  // All threads of this consumer have come here; 0 is __syncthreads.
  __device__ __forceinline__ void sync() const { sm90::named_barrier_sync(1 + consumer_, 128); }
  // After a wait for the products that read the place: they are the whole warpgroup's.
  static __device__ __forceinline__ void release(uint32_t barrier) {
    if (leads()) sm90::barrier_arrive(barrier);
  }

  // With lse and delta, which threads have read.
  __device__ __forceinline__ void release_queries() const {
    if (sm90::kAllThreadsArrive || leads()) sm90::barrier_arrive(barriers_.q_empty(stage()));
  }

  __device__ __forceinline__ int stage() const { return step_ & 1; }
  __device__ __forceinline__ uint32_t step_parity() const { return (step_ >> 1) & 1; }
  __device__ __forceinline__ int stage_before() const { return (step_ - 1) & 1; }
  __device__ __forceinline__ uint32_t parity_before() const { return ((step_ - 1) >> 1) & 1; }

  // Query i of the sequence sees this thread's keys from visible_[0] and visible_[1] on, and from tile full_tile_ on
  // all queries of a tile see all 64 keys.
  __device__ __forceinline__ void set_visible(int diagonal, int keys) {
    constexpr int kNever = 1 << 30;
    const int first = consumer_ * 64;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + first_row() + 8 * r;
      visible_[r] = row < keys ? diagonal + row : kNever;
    }
    const int last_diagonal = diagonal + first + 63;
    full_tile_ = keys < first + 64 ? kNever : max(last_diagonal + Traits::kQueries - 1, 0) / Traits::kQueries;
  }

  // The address of this lane's row for store_matrices, of four matrices that are 16 rows and 16 columns of a panel.
  static __device__ __forceinline__ uint32_t matrix_address(uint32_t panel, int columns_16) {
    const int matrix = lane() / 8;
    const int row = thread() / 32 * 16 + matrix % 2 * 8 + lane() % 8;
    const int chunk = 2 * columns_16 + matrix / 2;
    return panel + row * Traits::kRowBytes + ((chunk ^ (lane() % 8)) << 4);
  }

  __device__ __forceinline__ void issue_scores(float (&scores)[32]) const {
    const uint64_t queries = sm90::advance(q_rows_, stage() * Traits::kQBytes);
#pragma unroll
    for (int k = 0; k < Traits::kQk / 16; ++k) {
      constexpr int kPanelInK[] = {0, Traits::kLastNopePanelInK, Traits::kRopePanelInK};
      sm90::wgmma_ss_n64<0, 0>(scores, sm90::advance(k_rows_, kPanelInK[k / 4] * Traits::kKeyPanel + k % 4 * 32),
                               sm90::advance(queries, k / 4 * Traits::kQueryPanel + k % 4 * 32), k > 0);
    }
    sm90::wgmma_commit();
  }
  __device__ __forceinline__ void issue_dp(float (&dp)[32]) const {
    const uint64_t gradients = sm90::advance(do_rows_, stage() * Traits::kDoBytes);
#pragma unroll
    for (int k = 0; k < Traits::kValue / 16; ++k)
      sm90::wgmma_ss_n64<0, 0>(dp, sm90::advance(v_rows_, k / 4 * Traits::kKeyPanel + k % 4 * 32),
                               sm90::advance(gradients, k / 4 * Traits::kQueryPanel + k % 4 * 32), k > 0);
    sm90::wgmma_commit();
  }
  __device__ __forceinline__ void issue_dv(const uint32_t (&p)[16]) {
    const uint64_t gradients = sm90::advance(do_columns_, stage() * Traits::kDoBytes);
#pragma unroll
    for (int k = 0; k < Traits::kQueries / 16; ++k)
      sm90::wgmma_rs_n128<1>(dv_, &p[4 * k], sm90::advance(gradients, 2048 * k), 1);
    sm90::wgmma_commit();
  }
  __device__ __forceinline__ void issue_dk() {
    const uint64_t ds = sm90::advance(ds_rows_, stage() * Traits::kDsBytes);
    const uint64_t queries = sm90::advance(q_columns_, stage() * Traits::kQBytes);
#pragma unroll
    for (int k = 0; k < Traits::kQueries / 16; ++k)
      sm90::wgmma_ss_n192<0, 1>(dk_, sm90::advance(ds, 32 * k), sm90::advance(queries, 2048 * k), 1);
    sm90::wgmma_commit();
  }
  __device__ __forceinline__ void issue_dq(float (&dq)[48], int stage) const {
    const uint64_t ds = sm90::advance(ds_columns_, stage * Traits::kDsBytes);
#pragma unroll
    for (int k = 0; k < Traits::kKeys / 16; ++k)
      sm90::wgmma_ss_n96<1, 1>(dq, sm90::advance(ds, 2048 * k), sm90::advance(k_columns_, 2048 * k), k > 0);
    sm90::wgmma_commit();
  }

  // Scores become probabilities. `stats`: the address of lse of this thread's first two queries.
  __device__ __forceinline__ void exponentiate(float (&s)[32], uint32_t stats, int tile) const {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 lse = sm90::load_shared_float2(stats + 32 * j);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        s[4 * j + 2 * r] = sm90::exp2_approximate(fmaf(s[4 * j + 2 * r], p_.scale_log2e, -lse.x));
        s[4 * j + 2 * r + 1] = sm90::exp2_approximate(fmaf(s[4 * j + 2 * r + 1], p_.scale_log2e, -lse.y));
      }
    }
    if (tile >= full_tile_) return;
    const int first_query = tile * Traits::kQueries + 2 * (lane() % 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int hidden = visible_[r] - first_query;  // queries of this thread's columns, from the first on
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (8 * j < hidden) s[4 * j + 2 * r] = 0;
        if (8 * j + 1 < hidden) s[4 * j + 2 * r + 1] = 0;
      }
    }
  }

  // Four matrices of 16 columns each from fragments of 64 columns.
  template <typename Words>
  static __device__ __forceinline__ void store_fragments(uint32_t panel, const Words& words) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      sm90::store_matrices(matrix_address(panel, k), words(4 * k), words(4 * k + 1), words(4 * k + 2),
                           words(4 * k + 3));
  }

  // This consumer's rows of dS are written: tells both.
  __device__ __forceinline__ void publish_ds() const {
    sm90::proxy_fence();
    sync();  // and every lane has read lse and delta: the place of Q may be released after this
    release(barriers_.ds_full(stage()));
  }

  template <bool kFirst>
  __device__ __forceinline__ void step(int tile, uint32_t job_parity) {
    const uint32_t stats = shared_.base + Traits::kOffsetStats + stage() * Traits::kStatsBytes + 8 * (lane() % 4);
    uint32_t p[16], ds[16];
    {
      float s[32];
      sm90::barrier_wait(barriers_.q_full(stage()), step_parity());
      sm90::pin(s);
      sm90::wgmma_fence();
      issue_scores(s);
      sm90::wgmma_wait<0>();
      sm90::pin(s);
      exponentiate(s, stats, tile);
#pragma unroll
      for (int i = 0; i < 16; ++i) p[i] = sm90::pack_bf16(s[2 * i], s[2 * i + 1]);
    }
    if constexpr (kFirst) sm90::barrier_wait(barriers_.v_full(), job_parity);
    sm90::barrier_wait(barriers_.do_full(stage()), step_parity());
    {
      float dp[32];
      sm90::pin(dp);
      sm90::pin(dv_);
      sm90::wgmma_fence();
      issue_dp(dp);
      issue_dv(p);
      sm90::wgmma_wait<1>();
      sm90::pin(dp);
#pragma unroll
      for (int j = 0; j < 8; ++j) {  // with P as it was rounded for dV: the fp32 P is gone
        const float2 delta = sm90::load_shared_float2(stats + 4 * Traits::kQueries + 32 * j);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const uint32_t pair = p[2 * j + r];
          ds[2 * j + r] = sm90::pack_bf16(__uint_as_float(pair << 16) * (dp[4 * j + 2 * r] - delta.x),
                                          __uint_as_float(pair & 0xffff0000u) * (dp[4 * j + 2 * r + 1] - delta.y));
        }
      }
    }
    sm90::barrier_wait(barriers_.ds_empty(stage()), step_parity() ^ 1);
    store_fragments(ds_address(), [&](int i) { return ds[i]; });
    publish_ds();
    sm90::wgmma_wait<0>();
    sm90::pin(dv_);
    sm90::pin(p);
    release(barriers_.do_empty(stage()));
    // dQ of the step before and dK of this one.
    if constexpr (kFirst) {
      sm90::pin(dk_);
      sm90::wgmma_fence();
      issue_dk();
    } else {
      float dq[48];
      sm90::barrier_wait(barriers_.ds_full(stage_before()), parity_before());
      sm90::pin(dq);
      sm90::pin(dk_);
      sm90::wgmma_fence();
      issue_dq(dq, stage_before());
      issue_dk();
      sm90::wgmma_wait<1>();
      sm90::pin(dq);
      release(barriers_.ds_empty(stage_before()));
      hand_over_dq(dq);
    }
    sm90::wgmma_wait<0>();
    sm90::pin(dk_);
    release_queries();
    ++step_;
  }

  // No query of the tile sees one of these keys: zeros for the other consumer's products, and nothing to add.
  __device__ __forceinline__ void masked_step(uint32_t job_parity) {
    sm90::barrier_wait(barriers_.q_full(stage()), step_parity());
    sm90::barrier_wait(barriers_.v_full(), job_parity);
    sm90::barrier_wait(barriers_.do_full(stage()), step_parity());
    sm90::barrier_wait(barriers_.ds_empty(stage()), step_parity() ^ 1);
    store_fragments(ds_address(), [](int) { return 0u; });
    publish_ds();
    release(barriers_.do_empty(stage()));
    release_queries();
    ++step_;
  }

  // And with it the last use of K.
  __device__ __forceinline__ void last_dq() {
    float dq[48];
    sm90::barrier_wait(barriers_.ds_full(stage_before()), parity_before());
    sm90::pin(dq);
    sm90::wgmma_fence();
    issue_dq(dq, stage_before());
    sm90::wgmma_wait<0>();
    sm90::pin(dq);
    release(barriers_.ds_empty(stage_before()));
    release(barriers_.k_empty());
    hand_over_dq(dq);
  }

  // To the staging buffer, from where a writer sends it out.
  __device__ __forceinline__ void hand_over_dq(const float (&dq)[48]) {
    // The first consumer's first turn is free from the start, every other is handed over by the other's writer.
    sm90::barrier_wait(barriers_.staging_turn(consumer_), (halves_ & 1) ^ static_cast<uint32_t>(consumer_ == 0));
    ++halves_;
    const uint32_t to = shared_.base + Traits::kOffsetStaging + 16 * thread();
#pragma unroll
    for (int i = 0; i < 12; ++i)
      sm90::store_shared_float4(to + 2048 * i, dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
    sm90::proxy_fence();
    __syncwarp();
    if (sm90::kAllThreadsArrive || lane() == 0) sm90::barrier_arrive(barriers_.staging_full(consumer_));
  }

  __device__ __forceinline__ uint32_t ds_address() const {
    return shared_.base + Traits::kOffsetDs + stage() * Traits::kDsBytes + consumer_ * Traits::kConsumerRows;
  }

  // dV through the staging buffer and dK's nope columns through dS; dK's rope columns as fp32: added to those of the
  // other heads, or kept for a sum in a fixed order. The writers have waited for the zeros before they handed over a
  // turn, and without a turn there is nothing to add.
  __device__ __forceinline__ void store(const BackwardJob& job) {
    const uint32_t dv = shared_.base + Traits::kOffsetStaging + consumer_ * Traits::kConsumerRows;
    const uint32_t dk = shared_.base + Traits::kOffsetDs + consumer_ * Traits::kConsumerRows;
    Sums own;
    if constexpr (!kDeterministic)
      if (p_.schedule.in_parts()) own = exchange_sums(__shfl_sync(~0u, job.parts, 0));
    // The last half of dQ has left the staging buffer: it was the second consumer's, so it is the first one's turn.
    sm90::barrier_wait(barriers_.staging_turn(0), (halves_ & 1) ^ 1);
    if (own.dv) {
#pragma unroll
      for (int panel = 0; panel < Traits::kValuePanels; ++panel)
        store_fragments(dv + panel * Traits::kKeyPanel,
                        [&](int i) { return sm90::pack_bf16(dv_[32 * panel + 2 * i], dv_[32 * panel + 2 * i + 1]); });
    }
    // Both consumers are done with both stages of dS.
    sm90::barrier_wait(barriers_.ds_empty((step_ - 1) & 1), ((step_ - 1) >> 1) & 1);
    sm90::barrier_wait(barriers_.ds_empty((step_ - 2) & 1), ((step_ - 2) >> 1) & 1);
    if (own.dk_nope) {
#pragma unroll
      for (int panel = 0; panel < Traits::kNopePanels; ++panel)
        store_fragments(dk + panel * Traits::kDsBytes, [&](int i) {
          return sm90::pack_bf16(dk_[32 * panel + 2 * i] * p_.scale, dk_[32 * panel + 2 * i + 1] * p_.scale);
        });
    }
    sm90::proxy_fence();
    sync();
    const int first = consumer_ * 64;
    const int rows = min(job.keys - first, 64);
    const int token = job.key_token + first;
    if (rows == 64) {
      if (leads()) {
#pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          const sm90::TileCoordinate to{job.head, token, panel, job.batch};
          if (own.dv) sm90::tma_store(&maps_.dv, dv + panel * Traits::kKeyPanel, to);
          if (own.dk_nope) sm90::tma_store(&maps_.dk_nope, dk + panel * Traits::kDsBytes, to);
        }
        sm90::bulk_commit();
      }
    } else {
      // What lies behind the last key may be another sequence's.
      if (own.dv) copy_rows(dv, Traits::kKeyPanel, rows, p_.dv, job.batch, token, job.head);
      if (own.dk_nope) copy_rows(dk, Traits::kDsBytes, rows, p_.dk_nope, job.batch, token, job.head);
    }
    const int64_t key_row = (kDeterministic ? static_cast<int64_t>(job.head) * p_.key_rows : 0) + job.key_row;
    float* const dk_pe = p_.workspace.dk_pe + (key_row + first + first_row()) * Traits::kRope + 2 * (lane() % 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (first_row() + 8 * r >= rows) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int at = Traits::kNope / 2 + 4 * j + 2 * r;
        float* const to = dk_pe + r * 8 * Traits::kRope + 8 * j;
        const float2 values = make_float2(dk_[at] * p_.scale, dk_[at + 1] * p_.scale);
        if constexpr (kDeterministic)
          *reinterpret_cast<float2*>(to) = values;
        else
          sm90::add_float2(to, values);
      }
    }
  }

  // Which of a job's sums a part of it stores.
  struct Sums {
    bool dv = true, dk_nope = true;
  };

  // The first part of a job adds up dV and the second dK's nope columns, each its own and then the others' in order;
  // what it does not add up a part hands over. All parts are on the device at once, and they hand over before they
  // wait. The counters were 0 before the first lse came.
  __device__ __forceinline__ Sums exchange_sums(int parts) {
    if (parts == 1) return {};
    const int index = static_cast<int>(blockIdx.x), jobs = p_.schedule.jobs();
    const Sums own{index < jobs, index >= jobs && index < 2 * jobs};
    if (!own.dv) hand_over(dv_, sums_of(index, 0));
    if (!own.dk_nope) hand_over(dk_, sums_of(index, 1));
    sync();
    if (leads()) sm90::semaphore_add(parts_done(index), 1);
    if (!own.dv && !own.dk_nope) return own;
    int other = own.dv ? index : index - jobs;
#pragma unroll 1
    for (int part = 0; part < parts; ++part, other += jobs) {
      if (other == index) continue;
      if (leads()) sm90::semaphore_wait(parts_done(other), 1);
      sync();
      if (own.dv)
        add(dv_, sums_of(other, 0));
      else
        add(dk_, sums_of(other, 1));
    }
    return own;
  }
  __device__ __forceinline__ int* parts_done(int block) const {
    return p_.workspace.parts_done + Traits::kConsumers * block + consumer_;
  }
  // This thread's of dV (0) or dK's nope columns (1).
  __device__ __forceinline__ float4* sums_of(int block, int which) const {
    const int64_t at = 2 * (Traits::kConsumers * block + consumer_) + which;
    return p_.workspace.part_sums + at * (Traits::kSumFloats / 4) + thread();
  }
  static __device__ __forceinline__ void hand_over(const float* sums, float4* to) {
#pragma unroll
    for (int i = 0; i < Traits::kSumFloats / 512; ++i)
      to[128 * i] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
  static __device__ __forceinline__ void add(float* sums, const float4* from) {
#pragma unroll
    for (int i = 0; i < Traits::kSumFloats / 512; ++i) {
      const float4 x = __ldcg(from + 128 * i);
      sums[4 * i] += x.x;
      sums[4 * i + 1] += x.y;
      sums[4 * i + 2] += x.z;
      sums[4 * i + 3] += x.w;
    }
  }

  // The first `rows` rows of two panels to rows of 128 columns.
  __device__ __forceinline__ void copy_rows(uint32_t panels, int panel_bytes, int rows, const BackwardRows& to,
                                            int batch, int token, int head) const {
#pragma unroll 1
    for (int i = thread(); i < rows * 16; i += 128) {
      const int row = i / 16, chunk = i % 16;  // of 16 bytes
      const uint32_t from =
          panels + chunk / 8 * panel_bytes + row * Traits::kRowBytes + (((chunk % 8) ^ (row % 8)) << 4);
      reinterpret_cast<uint4*>(to.at(batch, token + row, head))[chunk] = sm90::load_shared_uint4(from);
    }
  }

  const BackwardMaps& maps_;
  const BackwardParams& p_;
  const BackwardShared& shared_;
  const BackwardBarriers& barriers_;
  const int consumer_;
  // K-major and MN-major descriptors: _rows_ has a row of the product for each row in memory, _columns_ for each
  // column.
  const uint64_t k_rows_, v_rows_, k_columns_, q_rows_, q_columns_, do_rows_, do_columns_, ds_rows_, ds_columns_;
  int step_ = 0;         // query tiles of all jobs
  uint32_t halves_ = 0;  // halves of dQ handed over
  int full_tile_ = 0;
  int visible_[2];
  float dk_[96], dv_[64];
};

}  // namespace lathe::ops::cuda
