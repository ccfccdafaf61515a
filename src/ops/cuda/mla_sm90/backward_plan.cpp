#include "ops/cuda/mla_sm90/backward_plan.h"

#include <algorithm>

#include "core/checked.h"

namespace lathe::ops::cuda {
namespace {

using Traits = BackwardTraits;

constexpr std::int64_t kMostMultiprocessors = 132;  // of a Hopper GPU
constexpr std::int64_t kCacheRows = 65536;          // of dQ, 768 bytes each: an H100's second-level cache of 50 MB

bool fits_cache(const MlaAttentionProblem& problem) {
  return checked_mul(problem.s_q, backward_groups(problem)) <= kCacheRows;
}

// The rules below were measured on an H100 (docs/performance.md).

// Sections of half of the cache, and of fewer groups if there are many, so that dQ is still there when it is converted
// (a fixed order has its longest runs with 8); long rows gain more from a second group in flight than they lose to the
// memory. The last section's long jobs end the call: if it has too few others beside them, all groups, while they fit
// the cache.
std::int64_t section_groups(const MlaAttentionProblem& problem) {
  const std::int64_t groups = backward_groups(problem), queries = std::max<std::int64_t>(problem.s_q, 1);
  const bool fit = fits_cache(problem);
  std::int64_t most = kCacheRows / 2 / queries;
  if (!fit) most = std::min<std::int64_t>(most, problem.deterministic && queries > 512 ? 8 : 16);
  if (queries > 8192) most = queries <= 16384 ? 4 : 2;
  const std::int64_t sections = ceil_div(groups, std::max<std::int64_t>(most, 1));
  const std::int64_t section = ceil_div(groups, sections);
  const std::int64_t last = groups - (sections - 1) * section;
  return fit && queries * last * 10 < kCacheRows * 3 ? groups : section;
}

// Query tiles of the longest job.
std::int64_t most_tiles(const MlaAttentionProblem& problem) {
  const std::int64_t unseen = problem.causal ? std::max<std::int64_t>(problem.s_q - problem.s_k, 0) : 0;
  return ceil_div(problem.s_q, Traits::kQueries) - unseen / Traits::kQueries;
}

// Parts of the longest job: as many as there are multiprocessors for, of two query tiles and more, while one more saves
// more than it costs to add up what it hands over, a third of a tile's time. In a fixed order a part would wait for the
// end of another one.
std::int64_t parts_of(const MlaAttentionProblem& problem, std::int64_t section, std::int64_t multiprocessors) {
  if (problem.packed || problem.deterministic || section < backward_groups(problem)) return 1;
  const std::int64_t tiles = most_tiles(problem);
  std::int64_t parts = std::min(multiprocessors, kMostMultiprocessors) / backward_jobs(problem);
  parts = std::min(parts, tiles / 2);
  while (parts * parts > 3 * tiles) --parts;
  return parts > 1 ? ceil_div(tiles, ceil_div(tiles, parts)) : 1;
}

// Blocks that convert dQ while the others compute: where there are sections to convert behind the one that is computed,
// as many as keep pace, if they cost less than the pass over memory that they save. That depends on how long a row of
// dQ takes to compute, so on its keys. More of them cut runs of key blocks shorter, which additions in a fixed order
// pay for.
std::int64_t converting_blocks(const MlaAttentionProblem& problem, std::int64_t multiprocessors) {
  constexpr std::int64_t kBlockKeys = 7 * 2048, kMostKeys = 8192, kFewest = 3;
  const std::int64_t keys = problem.packed ? ceil_div(problem.s_k, problem.sequences) : problem.s_k;
  const std::int64_t as_causal = problem.causal ? keys : 2 * keys;
  const std::int64_t wanted = !problem.deterministic ? 10 : keys <= 512 ? 6 : 4;
  const std::int64_t most = std::min(wanted, multiprocessors - 1);
  if (as_causal > kMostKeys || most < kFewest) return 0;
  return std::clamp(ceil_div(kBlockKeys, as_causal), kFewest, most);
}

BackwardPlan plan_with_sections(const MlaAttentionProblem& problem, std::int64_t section,
                                std::int64_t multiprocessors) {
  const std::int64_t groups = backward_groups(problem);
  const std::int64_t parts = parts_of(problem, section, multiprocessors);
  const std::int64_t converting = section < groups ? converting_blocks(problem, multiprocessors) : 0;
  const std::int64_t blocks = std::min(backward_jobs(problem) * parts, multiprocessors - converting);
  BackwardPlan plan;
  plan.blocks = static_cast<int>(blocks);
  plan.converting_blocks = static_cast<int>(converting);
  plan.schedule.key_blocks = static_cast<int>(ceil_div(problem.s_k, Traits::kKeys));
  plan.schedule.groups = static_cast<int>(groups);
  plan.schedule.section_groups = static_cast<int>(section);
  plan.schedule.run_blocks = static_cast<int>(std::max<std::int64_t>(blocks / section, 1));
  plan.schedule.parts = static_cast<int>(parts);
  plan.schedule.part_tiles = static_cast<int>(ceil_div(most_tiles(problem), parts));
  return plan;
}

}  // namespace

std::int64_t backward_pieces(const MlaAttentionProblem& problem, std::int64_t tokens, int size) {
  if (problem.packed) return tokens / size + problem.sequences;
  return checked_mul(problem.sequences, ceil_div(tokens, size));
}

std::int64_t backward_groups(const MlaAttentionProblem& problem) {
  return problem.packed ? problem.h : checked_mul(problem.sequences, problem.h);
}

std::int64_t backward_jobs(const MlaAttentionProblem& problem) {
  return checked_mul(backward_pieces(problem, problem.s_k, Traits::kKeys), problem.h);
}

std::int64_t backward_parts_handed_over(const MlaAttentionProblem& problem) {
  MlaAttentionProblem fast = problem;
  fast.deterministic = false;
  const std::int64_t parts = parts_of(fast, section_groups(fast), kMostMultiprocessors);
  return parts > 1 ? parts * backward_jobs(problem) : 0;
}

BackwardPlan plan_backward(const MlaAttentionProblem& problem, int multiprocessors) {
  const std::int64_t groups = backward_groups(problem);
  const BackwardPlan plan = plan_with_sections(problem, section_groups(problem), multiprocessors);
  // In a fixed order a short last run leaves blocks waiting. While all of dQ fits the cache, runs over all groups are
  // quicker if they are long enough.
  constexpr std::int64_t kLongRun = 6;
  const bool short_run = plan.schedule.key_blocks % plan.schedule.run_blocks != 0;
  if (problem.deterministic && short_run && fits_cache(problem) && multiprocessors / groups >= kLongRun)
    return plan_with_sections(problem, groups, multiprocessors);
  return plan;
}

}  // namespace lathe::ops::cuda
