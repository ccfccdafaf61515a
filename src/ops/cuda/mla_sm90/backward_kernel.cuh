// The backward on Hopper: one persistent block an SM, four loading warps and two computing warpgroups.
#pragma once

#include "ops/cuda/mla_sm90/backward_consumer.cuh"
#include "ops/cuda/mla_sm90/backward_converter.cuh"
#include "ops/cuda/mla_sm90/backward_loaders.cuh"

namespace lathe::ops::cuda {

template <bool kPacked, bool kDeterministic>
__global__ void __launch_bounds__(BackwardTraits::kThreads, 1)
    mla_backward_kernel(const __grid_constant__ BackwardMaps maps, const __grid_constant__ BackwardParams p) {
  using Traits = BackwardTraits;
  // Panels need 1024 bytes of alignment. The address is a constant: computed, it would cost a register everywhere.
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  const uint32_t base = sm90::shared_address(dynamic_shared);
  if (base % 1024 != 0) __trap();
  const BackwardShared shared{base, reinterpret_cast<BackwardJob*>(dynamic_shared + Traits::kOffsetJobs),
                              BackwardBarriers(base + Traits::kOffsetBarriers)};
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 128), 0);
  const bool converts = static_cast<int>(blockIdx.x) >= p.blocks;
  if (threadIdx.x == 0) {
    if (converts)
      BackwardConverter<kPacked>(p, shared).init();
    else
      shared.barriers.init();
  }
  if (threadIdx.x == 32) {
    sm90::tma_prefetch_map(&maps.k_nope);
    sm90::tma_prefetch_map(&maps.k_pe);
    sm90::tma_prefetch_map(&maps.q_nope);
    sm90::tma_prefetch_map(&maps.q_pe);
    sm90::tma_prefetch_map(&maps.dout);
    sm90::tma_prefetch_map(&maps.v);
  }
  __syncthreads();
  sm90::let_next_kernel_begin();

  if (converts) {
    BackwardConverter<kPacked> converter(p, shared);
    if (warpgroup > 0)
      converter.convert(warpgroup - 1);
    else if (threadIdx.x == 0)
      converter.load();
  } else if (warpgroup == 0) {
    sm90::registers_decrease<Traits::kLoaderRegisters>();
    if (threadIdx.x == 0) KeyAndQueryLoader(maps, p, shared).run<kPacked>();
    if (threadIdx.x == 32) write_dq<kDeterministic>(p, shared, 0);
    if (threadIdx.x == 64) OutputGradientAndValueLoader(maps, p, shared).run<kPacked>();
    if (threadIdx.x == 96) {
      // The starts go in negated, so that no register keeps them.
      const bool timed = p.clock_counters != nullptr && blockIdx.x == 0;
      if (timed) {
        p.clock_counters[0] -= static_cast<std::uint64_t>(clock64());
        p.clock_counters[1] -= sm90::nanoseconds();
      }
      write_dq<kDeterministic>(p, shared, 1);
      if (timed) {
        p.clock_counters[0] += static_cast<std::uint64_t>(clock64());
        p.clock_counters[1] += sm90::nanoseconds();
      }
    }
  } else {
    sm90::registers_increase<Traits::kConsumerRegisters>();
    BackwardConsumer<kDeterministic>(maps, p, shared, warpgroup - 1).run();
    if (p.converting_blocks > 0) convert_rest<kPacked>(p);
  }
}

}  // namespace lathe::ops::cuda
