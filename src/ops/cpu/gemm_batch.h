// Several matrix products at once: threads share the tiles of all of them.
#pragma once

#include <omp.h>

#include <algorithm>

#include "device/arena.h"
#include "ops/cpu/gemm.h"

namespace lathe::ops::cpu {

// Computes product(i) for i in [0, count); product returns a Gemm<T>, and none writes what another reads or writes.
template <typename T, typename Product>
void gemm_batch(Arena& scratch, std::int64_t count, Product&& product) {
  const ArenaScope scope(scratch);
  std::int64_t* first_tile = scratch.take(DType::i64, {count + 1}).as<std::int64_t>();
  first_tile[0] = 0;
  for (std::int64_t i = 0; i < count; ++i) first_tile[i + 1] = first_tile[i] + gemm_num_tiles(product(i));
  const auto run_tile = [&](std::int64_t tile) {
    const std::int64_t i = std::upper_bound(first_tile, first_tile + count + 1, tile) - first_tile - 1;
    gemm_on_one_thread(gemm_tile(product(i), tile - first_tile[i]));
  };
  if (first_tile[count] <= 1 || omp_in_parallel() != 0) {
    for (std::int64_t tile = 0; tile < first_tile[count]; ++tile) run_tile(tile);
    return;
  }
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t tile = 0; tile < first_tile[count]; ++tile) run_tile(tile);
}

}  // namespace lathe::ops::cpu
