#include "ops/cuda/mla_sm90/forward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/checked.h"
#include "core/error.h"
#include "device/cuda_check.h"
#include "ops/cuda/device_facts.h"
#include "ops/cuda/mla_sm90/call_workspace.h"
#include "ops/cuda/mla_sm90/forward_launch.h"
#include "ops/cuda/mla_sm90/tensor_map.h"

namespace lathe::ops::cuda {
namespace {

using Traits = ForwardTraits;

constexpr std::string_view kName = "mla_attention_forward";

// Blocks that share keys and values, 1 or 2. A pair's tile is twice as high, so there must be enough of them for an
// even finish; then fewer bytes from the cache leave more of the power for the clock: 1 to 4% in long runs. Rows of few
// blocks lose more to the pair's waits. Measured on an H100 (docs/performance.md).
int cluster_for(const MlaAttentionProblem& problem) {
  constexpr std::int64_t kLeastTokens = 4096, kLeastTiles = 768;
  if (problem.packed || std::min(problem.s_q, problem.s_k) < kLeastTokens) return 1;
  return ceil_div(problem.s_q, 2 * Traits::kRows) * problem.sequences * problem.h >= kLeastTiles ? 2 : 1;
}

// Row tiles of one (batch, head) pair; of packed sequences the most that there can be of one head.
std::int64_t row_tiles(const MlaAttentionProblem& problem) {
  if (!problem.packed) return ceil_div(problem.s_q, Traits::kRows * cluster_for(problem));
  return problem.s_q / Traits::kRows + std::min(problem.sequences, problem.s_q);
}

// Measured on an H100 (50 MB of second-level cache): sections of 22 MB of keys and values, with the shortest 30% of the
// row tiles pooled over all sections at the end.
ForwardSchedule schedule_for(const MlaAttentionProblem& problem) {
  constexpr double kSectionBytes = 22e6;
  constexpr double kTokenBytes = 2 * (Traits::kNope + Traits::kValue);  // a head's own; the rope part is shared
  constexpr float kShortShare = 0.3f;
  const std::int64_t groups = problem.packed ? problem.h : problem.sequences * problem.h;
  std::int64_t section = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(kSectionBytes / (static_cast<double>(problem.s_k) * kTokenBytes)), 1, groups);
  while (groups % section != 0) --section;
  ForwardSchedule schedule;
  schedule.row_tiles = static_cast<int>(row_tiles(problem));
  schedule.groups = static_cast<int>(groups);
  schedule.section_groups = static_cast<int>(section);
  schedule.short_share = section == groups ? 0.f : kShortShare;
  schedule.by_section_groups = Divisor(static_cast<std::uint32_t>(section));
  schedule.by_groups = Divisor(static_cast<std::uint32_t>(groups));
  schedule.by_heads = Divisor(static_cast<std::uint32_t>(problem.h));
  // As the kernel counts them.
  const int long_tiles =
      schedule.row_tiles - static_cast<int>(schedule.short_share * static_cast<float>(schedule.row_tiles));
  schedule.by_section_tiles = Divisor(static_cast<std::uint32_t>(section * std::max(long_tiles, 1)));
  return schedule;
}

ForwardParams params_for(const MlaAttentionProblem& problem, const MlaAttentionForward& op) {
  const std::size_t token = problem.packed ? 0 : 1;
  ForwardParams params;
  params.out = static_cast<__nv_bfloat16*>(op.out.data);
  params.out_batch = problem.packed ? 0 : op.out.strides[0];
  params.out_token = op.out.strides[token];
  params.out_head = op.out.strides[token + 1];
  params.lse = op.lse.as<float>();
  params.lse_batch = problem.packed ? 0 : op.lse.strides[0];
  params.lse_head = op.lse.strides[token];
  params.lse_token = op.lse.strides[token + 1];
  params.heads = static_cast<int>(problem.h);
  params.s_q = static_cast<int>(problem.s_q);
  params.s_k = static_cast<int>(problem.s_k);
  params.causal = problem.causal;
  params.scale = static_cast<float>(problem.softmax_scale);
  params.scale_log2e = static_cast<float>(problem.softmax_scale * 1.4426950408889634);
  params.schedule = schedule_for(problem);
  params.clock_counters = op.workspace.clock_counters;
  return params;
}

// The counters are at the beginning of every workspace; packed sequences need a list of their tiles too.
struct Layout : WorkspaceLayout {
  std::size_t tile_count, tiles;

  explicit Layout(const MlaAttentionProblem& problem) {
    const std::size_t packed = problem.packed ? 1 : 0;
    tile_count = take(packed, sizeof(int));
    tiles = take(packed * static_cast<std::size_t>(row_tiles(problem)), sizeof(PackedTile));
  }
};
static_assert(sizeof(ForwardCounters) <= WorkspaceLayout::kPiece);

// All that could go wrong is found out here, before anything is launched.
void check_layout(const MlaAttentionProblem& problem, const MlaAttentionForward& op) {
  check_16_byte_access("q_nope", op.q_nope);
  check_16_byte_access("q_pe", op.q_pe);
  check_16_byte_access("k_nope", op.k_nope);
  check_16_byte_access("k_pe", op.k_pe);
  check_16_byte_access("v", op.v);
  check_16_byte_access("o", op.out);
  constexpr std::int64_t kMost = std::numeric_limits<int>::max() / 2;
  const std::int64_t groups = problem.packed ? problem.h : problem.sequences * problem.h;
  check(problem.s_q <= kMost && problem.s_k <= kMost && row_tiles(problem) <= kMost / std::max<std::int64_t>(groups, 1),
        "{}: {} sequences of {} queries and {} keys and {} heads are more than 2^30 tiles or tokens", kName,
        problem.sequences, problem.s_q, problem.s_k, problem.h);
}

void prepare_device(const DeviceFacts& device) {
  thread_local int prepared = -1;
  if (prepared == device.device) return;
  check_cuda(prepare_forward_kernels(), "cudaFuncSetAttribute");
  prepared = device.device;
}

}  // namespace

std::size_t mla_sm90_forward_workspace(const MlaAttentionProblem& problem) { return Layout(problem).bytes(); }

void mla_sm90_forward(const Context& context, const MlaAttentionForward& op) {
  const MlaAttentionProblem problem = problem_of(op);
  check_layout(problem, op);
  if (problem.s_q == 0 || problem.sequences == 0) return;
  const auto stream = static_cast<cudaStream_t>(context.stream.handle);
  ForwardParams params = params_for(problem, op);
  if (problem.s_k == 0) {
    check_cuda(launch_fill_empty(params, problem.packed ? 1 : static_cast<int>(problem.sequences),
                                 static_cast<int>(problem.s_q), stream),
               "launching the fill of rows without keys");
    return;
  }
  const DeviceFacts& device = current_device();
  prepare_device(device);
  // In a pair each block loads a panel of k_nope and of v, and half of the tokens of k_pe.
  const int cluster = cluster_for(problem);
  const ForwardMaps maps{
      .q_nope = tensor_map(op.q_nope, {64, Traits::kNopePanels}),
      .q_pe = tensor_map(op.q_pe, {64, 1}),
      .k_nope = tensor_map(op.k_nope, {Traits::kKeys, Traits::kNopePanels / cluster}),
      .k_pe = tensor_map(op.k_pe, {Traits::kKeys / cluster, 1}),
      .v = tensor_map(op.v, {Traits::kKeys, Traits::kValuePanels / cluster}),
  };
  std::optional<ArenaScope> scope;
  if (context.scratch != nullptr) scope.emplace(*context.scratch);
  const Layout layout(problem);
  char* const workspace = workspace_for(context, op.workspace, layout.bytes(), kName);
  if (op.workspace.data == nullptr)
    check_cuda(cudaMemsetAsync(workspace, 0, sizeof(ForwardCounters), stream), "cudaMemsetAsync");
  params.counters = reinterpret_cast<ForwardCounters*>(workspace);
  if (problem.packed) {
    params.cu_seqlens_q = op.cu_seqlens_q.as<std::int32_t>();
    params.cu_seqlens_k = op.cu_seqlens_k.as<std::int32_t>();
    auto* tiles = reinterpret_cast<PackedTile*>(workspace + layout.tiles);
    auto* tile_count = reinterpret_cast<int*>(workspace + layout.tile_count);
    params.tiles = tiles;
    params.tile_count = tile_count;
    const PackedSequences sequences{params.cu_seqlens_q, params.cu_seqlens_k, static_cast<int>(problem.sequences),
                                    static_cast<int>(problem.s_k), problem.causal};
    check_cuda(launch_list_tiles(sequences, tiles, tile_count, stream), "launching the list of row tiles");
  }
  const std::int64_t tiles = row_tiles(problem) * params.schedule.groups;
  const std::int64_t most = device.multiprocessors / cluster;
  check_cuda(
      launch_forward(maps, params, problem.packed, cluster, static_cast<int>(std::min(tiles, most)) * cluster, stream),
      "launching the attention forward");
}

}  // namespace lathe::ops::cuda
