#include "ops/cuda/mla_sm90/backward.h"

#include <algorithm>
#include <optional>

#include "core/checked.h"
#include "core/error.h"
#include "device/cuda_check.h"
#include "ops/cuda/device_facts.h"
#include "ops/cuda/mla_sm90/backward_launch.h"
#include "ops/cuda/mla_sm90/backward_plan.h"
#include "ops/cuda/mla_sm90/call_workspace.h"
#include "ops/cuda/mla_sm90/tensor_map.h"

namespace lathe::ops::cuda {
namespace {

using Traits = BackwardTraits;

constexpr std::string_view kName = "mla_attention_backward";

std::int64_t query_tiles(const MlaAttentionProblem& problem) {
  return backward_pieces(problem, problem.s_q, Traits::kQueries);
}
std::int64_t key_rows(const MlaAttentionProblem& problem) {
  return problem.packed ? problem.s_k : checked_mul(problem.sequences, problem.s_k);
}

// Where each part of the workspace begins, and how long it is in all.
struct Layout : WorkspaceLayout {
  std::size_t next_job, job_count, stats, dq, dk_pe, semaphores, tile_rows, jobs, zeros, next_half, groups_done,
      part_sums, parts_done;

  explicit Layout(const MlaAttentionProblem& problem) {
    const auto heads = narrow<std::size_t>(problem.h);
    const auto tiles = checked_mul(heads, narrow<std::size_t>(query_tiles(problem)));
    const auto rows = checked_mul(heads, narrow<std::size_t>(key_rows(problem)));
    const std::size_t packed = problem.packed ? 1 : 0;
    next_job = take(1, sizeof(int));
    job_count = take(1, sizeof(int));
    stats = take(tiles, Traits::kStatsBytes);
    dq = take(tiles, 2 * Traits::kDqHalfBytes);
    dk_pe = take(rows, Traits::kRope * sizeof(float));
    semaphores = take(tiles, 2 * sizeof(int));
    tile_rows = take(packed * narrow<std::size_t>(query_tiles(problem)), sizeof(BackwardTileRows));
    jobs =
        take(packed * narrow<std::size_t>(backward_pieces(problem, problem.s_k, Traits::kKeys)), sizeof(BackwardJob));
    zeros = take(packed, Traits::kKeyPanel);
    next_half = take(1, sizeof(int));
    groups_done = take(narrow<std::size_t>(backward_groups(problem)), kGroupDoneStride * sizeof(int));
    const auto handed_over = narrow<std::size_t>(backward_parts_handed_over(problem)) * Traits::kConsumers;
    part_sums = take(handed_over, 2 * Traits::kSumFloats * sizeof(float));
    parts_done = take(handed_over, sizeof(int));
  }

  BackwardWorkspace at(char* base) const {
    BackwardWorkspace workspace;
    workspace.next_job = reinterpret_cast<int*>(base + next_job);
    workspace.job_count = reinterpret_cast<int*>(base + job_count);
    workspace.stats = reinterpret_cast<float*>(base + stats);
    workspace.dq = reinterpret_cast<float*>(base + dq);
    workspace.dk_pe = reinterpret_cast<float*>(base + dk_pe);
    workspace.semaphores = reinterpret_cast<int*>(base + semaphores);
    workspace.tile_rows = reinterpret_cast<BackwardTileRows*>(base + tile_rows);
    workspace.jobs = reinterpret_cast<BackwardJob*>(base + jobs);
    workspace.zeros = reinterpret_cast<uint4*>(base + zeros);
    workspace.next_half = reinterpret_cast<int*>(base + next_half);
    workspace.groups_done = reinterpret_cast<int*>(base + groups_done);
    workspace.part_sums = reinterpret_cast<float4*>(base + part_sums);
    workspace.parts_done = reinterpret_cast<int*>(base + parts_done);
    return workspace;
  }
};

BackwardRows rows_of(const TensorView& tensor) {
  const bool packed = tensor.rank == 3;
  const std::size_t token = packed ? 0 : 1;
  return {static_cast<__nv_bfloat16*>(tensor.data), packed ? 0 : tensor.strides[0], tensor.strides[token],
          tensor.strides[token + 1]};
}

BackwardStats stats_of(const TensorView& tensor) {
  if (!tensor) return {};
  const bool packed = tensor.rank == 2;
  return {tensor.as<float>(), packed ? 0 : tensor.strides[0], tensor.strides[packed ? 0 : 1]};
}

BackwardParams params_for(const MlaAttentionProblem& problem, const MlaAttentionBackward& op, int multiprocessors) {
  BackwardParams params;
  params.out = rows_of(op.out);
  params.dout = rows_of(op.dout);
  params.dq_nope = rows_of(op.dq_nope);
  params.dq_pe = rows_of(op.dq_pe);
  params.dk_nope = rows_of(op.dk_nope);
  params.dk_pe = rows_of(op.dk_pe);
  params.dv = rows_of(op.dv);
  params.lse = stats_of(op.lse);
  params.dlse = stats_of(op.dlse);
  params.heads = static_cast<int>(problem.h);
  params.sequences = static_cast<int>(problem.sequences);
  params.s_q = static_cast<int>(problem.s_q);
  params.s_k = static_cast<int>(problem.s_k);
  params.sequence_tiles = static_cast<int>(ceil_div(problem.s_q, Traits::kQueries));
  params.tiles = static_cast<int>(query_tiles(problem));
  params.key_rows = static_cast<int>(key_rows(problem));
  params.causal = problem.causal;
  params.deterministic = op.deterministic;
  params.scale = static_cast<float>(problem.softmax_scale);
  params.scale_log2e = static_cast<float>(problem.softmax_scale * 1.4426950408889634);
  params.clock_counters = op.workspace.clock_counters;
  if (problem.packed) {
    params.cu_seqlens_q = op.cu_seqlens_q.as<std::int32_t>();
    params.cu_seqlens_k = op.cu_seqlens_k.as<std::int32_t>();
  }
  const BackwardPlan plan = plan_backward(problem, multiprocessors);
  params.multiprocessors = multiprocessors;
  params.schedule = plan.schedule;
  params.blocks = plan.blocks;
  params.converting_blocks = plan.converting_blocks;
  return params;
}

// All that could go wrong is found out here, before anything is launched.
void check_layout(const MlaAttentionProblem& problem, const MlaAttentionBackward& op) {
  check_16_byte_access("q_nope", op.q_nope);
  check_16_byte_access("q_pe", op.q_pe);
  check_16_byte_access("k_nope", op.k_nope);
  check_16_byte_access("k_pe", op.k_pe);
  check_16_byte_access("v", op.v);
  check_16_byte_access("o", op.out);
  check_16_byte_access("do", op.dout);
  check_16_byte_access("dq_nope", op.dq_nope);
  check_16_byte_access("dq_pe", op.dq_pe);
  check_16_byte_access("dk_nope", op.dk_nope);
  check_16_byte_access("dk_pe", op.dk_pe);
  check_16_byte_access("dv", op.dv);
  // Every count that the kernels keep in 32 bits: threads and blocks of the grids among them.
  constexpr std::int64_t kMost = std::int64_t{1} << 29;
  const auto fits = [](std::int64_t count, std::int64_t times) {
    return count <= kMost / std::max<std::int64_t>(times, 1);
  };
  check(fits(key_rows(problem), Traits::kRope / 4) && fits(problem.s_q, 1) &&
            fits(query_tiles(problem), 2 * problem.h) && fits(backward_jobs(problem), 1) &&
            fits(backward_groups(problem), kGroupDoneStride),
        "{}: {} sequences of {} queries and {} keys and {} heads are too many to count in 32 bits", kName,
        problem.sequences, problem.s_q, problem.s_k, problem.h);
}

void zero(const TensorView& tensor, cudaStream_t stream) {
  const bool packed = tensor.rank == 3;
  const std::size_t token = packed ? 0 : 1;
  const auto size = [&](std::size_t dim) { return static_cast<int>(tensor.shape[dim]); };
  check_cuda(
      launch_zero_rows(rows_of(tensor), packed ? 1 : size(0), size(token), size(token + 1), size(token + 2), stream),
      "launching the zeros of gradients that nothing depends on");
}

BackwardMaps maps_for(const MlaAttentionBackward& op) {
  constexpr int kNopePanels = Traits::kNopePanels, kValuePanels = Traits::kValuePanels;
  return {
      .q_nope = tensor_map(op.q_nope, {Traits::kQueries, kNopePanels}),
      .q_pe = tensor_map(op.q_pe, {Traits::kQueries, 1}),
      .k_nope = tensor_map(op.k_nope, {Traits::kKeys, 1}),
      .k_pe = tensor_map(op.k_pe, {Traits::kKeys, 1}),
      .v = tensor_map(op.v, {Traits::kKeys, kValuePanels}),
      .dout = tensor_map(op.dout, {Traits::kQueries, kValuePanels}),
      .dk_nope = tensor_map(op.dk_nope, {64, 1}),
      .dv = tensor_map(op.dv, {64, 1}),
  };
}

void prepare_device(const DeviceFacts& device) {
  thread_local int prepared = -1;
  if (prepared == device.device) return;
  check_cuda(prepare_backward_kernels(), "cudaFuncSetAttribute");
  check_cuda(prepare_convert_kernel(), "cudaFuncSetAttribute");
  prepared = device.device;
}

}  // namespace

std::size_t mla_sm90_backward_workspace(const MlaAttentionProblem& problem) {
  if (problem.s_q == 0 || problem.s_k == 0 || problem.sequences == 0) return 0;
  return Layout(problem).bytes();
}

// Nothing in the workspace is read before the same call has written it, so calls of any shapes may follow each other on
// it, after one that was aborted too.
void mla_sm90_backward(const Context& context, const MlaAttentionBackward& op) {
  const MlaAttentionProblem problem = problem_of(op);
  check_layout(problem, op);
  const auto stream = static_cast<cudaStream_t>(context.stream.handle);
  if (problem.s_q == 0 || problem.s_k == 0 || problem.sequences == 0) {
    for (const TensorView* tensor : {&op.dq_nope, &op.dq_pe, &op.dk_nope, &op.dk_pe, &op.dv}) zero(*tensor, stream);
    return;
  }
  const DeviceFacts& device = current_device();
  prepare_device(device);
  const BackwardMaps maps = maps_for(op);
  const Layout layout(problem);
  std::optional<ArenaScope> scope;
  if (context.scratch != nullptr) scope.emplace(*context.scratch);
  BackwardParams params = params_for(problem, op, device.multiprocessors);
  params.workspace = layout.at(workspace_for(context, op.workspace, layout.bytes(), kName));
  check_cuda(launch_prepare_backward(params, stream), "launching the attention backward's preparation");
  check_cuda(launch_backward(maps, params, stream), "launching the attention backward");
  check_cuda(launch_convert_backward(params, stream), "launching the attention backward's conversion");
}

}  // namespace lathe::ops::cuda
