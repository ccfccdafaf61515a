// The barriers of the backward kernel, and who arrives at them.
#pragma once

#include "ops/cuda/mla_sm90/backward_traits.h"
#include "sm90/barrier.cuh"

namespace lathe::ops::cuda {

class BackwardBarriers {
 public:
  using Traits = BackwardTraits;

  __device__ __forceinline__ explicit BackwardBarriers(uint32_t base) : base_(base) {}

  // "Full" ends with the loader's one arrival and its bytes, "empty" with an arrival of each consumer.
  __device__ __forceinline__ uint32_t k_full() const { return at(0); }
  __device__ __forceinline__ uint32_t k_empty() const { return at(1); }
  __device__ __forceinline__ uint32_t v_full() const { return at(2); }
  __device__ __forceinline__ uint32_t v_empty() const { return at(3); }
  // Packed sequences: a tile whose last rows are to become 0 has arrived. One for each loader.
  __device__ __forceinline__ uint32_t tail(int loader) const { return at(4 + loader); }
  __device__ __forceinline__ uint32_t q_full(int stage) const { return at(6 + stage); }  // with lse and delta
  __device__ __forceinline__ uint32_t q_empty(int stage) const { return at(8 + stage); }
  __device__ __forceinline__ uint32_t do_full(int stage) const { return at(10 + stage); }
  __device__ __forceinline__ uint32_t do_empty(int stage) const { return at(12 + stage); }
  // Both consumers have written their rows of dS; both have read them for dQ.
  __device__ __forceinline__ uint32_t ds_full(int stage) const { return at(14 + stage); }
  __device__ __forceinline__ uint32_t ds_empty(int stage) const { return at(16 + stage); }
  __device__ __forceinline__ uint32_t job_full(int slot) const { return at(18 + slot); }
  // Everybody but who hands out jobs has read it: the other loader, two writers, two consumers.
  __device__ __forceinline__ uint32_t job_empty(int slot) const { return at(20 + slot); }
  // This consumer's half of dQ lies in the staging buffer (an arrival a warp); the buffer is free for this consumer
  // (its writer of the other half has read it). Strict turns, consumer 0 first.
  __device__ __forceinline__ uint32_t staging_full(int consumer) const { return at(22 + consumer); }
  __device__ __forceinline__ uint32_t staging_turn(int consumer) const { return at(24 + consumer); }

  __device__ __forceinline__ void init() const {
    sm90::barrier_init(k_full(), 1);
    sm90::barrier_init(k_empty(), Traits::kConsumers);
    sm90::barrier_init(v_full(), 1);
    sm90::barrier_init(v_empty(), Traits::kConsumers);
    for (int i = 0; i < 2; ++i) {
      sm90::barrier_init(tail(i), 1);
      sm90::barrier_init(q_full(i), 1);
      sm90::barrier_init(q_empty(i), sm90::kAllThreadsArrive ? 128 * Traits::kConsumers : Traits::kConsumers);
      sm90::barrier_init(do_full(i), 1);
      sm90::barrier_init(do_empty(i), Traits::kConsumers);
      sm90::barrier_init(ds_full(i), Traits::kConsumers);
      sm90::barrier_init(ds_empty(i), Traits::kConsumers);
      sm90::barrier_init(job_full(i), 1);
      sm90::barrier_init(job_empty(i), 1 + Traits::kConsumers * (sm90::kAllThreadsArrive ? 1 + 128 : 2));
      sm90::barrier_init(staging_full(i), sm90::kAllThreadsArrive ? 128 : 4);
      sm90::barrier_init(staging_turn(i), 1);
    }
    sm90::barrier_init_fence();
  }

 private:
  __device__ __forceinline__ uint32_t at(int index) const { return base_ + 8 * index; }

  uint32_t base_;
};
static_assert(BackwardTraits::kBarriers == 26 && BackwardTraits::kStages == 2 && BackwardTraits::kJobSlots == 2);

}  // namespace lathe::ops::cuda
