// From an index in the list of jobs to a job, which queries it walks over, and the order of additions to dQ.
#pragma once

#include "ops/cuda/mla_sm90/backward_params.h"
#include "sm90/control.cuh"

namespace lathe::ops::cuda {

__device__ __forceinline__ bool is_packed(const BackwardParams& p) { return p.cu_seqlens_q != nullptr; }

// Sequence i of packed ones has its pieces of `size` tokens numbered from here on: at least as many numbers as pieces
// before the next sequence's, without a sum over the sequences.
__device__ __forceinline__ int first_piece(const int* cu_seqlens, int i, int size) { return cu_seqlens[i] / size + i; }

__device__ __forceinline__ int key_blocks_of(int s_k) {
  return (s_k + BackwardTraits::kKeys - 1) / BackwardTraits::kKeys;
}
__device__ __forceinline__ int query_tiles_of(int s_q) {
  return (s_q + BackwardTraits::kQueries - 1) / BackwardTraits::kQueries;
}

// What of a job depends on the block and on its sequence's lengths only.
__device__ __forceinline__ BackwardJob job_of_block(int block, int s_q, int s_k, bool causal, int run_blocks) {
  constexpr int kSeesAll = -(1 << 29);
  BackwardJob job;
  const int first_key = block * BackwardTraits::kKeys;
  job.block = block;
  job.queries = s_q;
  job.key_token = first_key;
  job.keys = min(BackwardTraits::kKeys, s_k - first_key);
  job.diagonal = causal ? first_key - s_k + s_q : kSeesAll;
  job.blocks_before_run = block / run_blocks * run_blocks;
  job.blocks_after = min(job.blocks_before_run + run_blocks, key_blocks_of(s_k)) - 1 - block;
  return job;
}

// The query tiles of a job: [first_tile, end_tile); empty only where the sequence has no queries, as the last query
// sees all keys.
__device__ __forceinline__ int first_tile(int diagonal) { return max(diagonal, 0) / BackwardTraits::kQueries; }
__device__ __forceinline__ int end_tile(int queries) { return query_tiles_of(queries); }

// Cuts out one of the parts of `tiles` query tiles: its queries as if they were all. A shorter job has fewer parts, and
// this one may be none of them.
__device__ __forceinline__ void cut_part(BackwardJob& job, int part, int tiles) {
  const int begin = first_tile(job.diagonal);
  const int first = begin + part * tiles;
  job.parts = (end_tile(job.queries) - begin + tiles - 1) / tiles;
  if (part >= job.parts) job.head = -1;
  const int skipped = first * BackwardTraits::kQueries;
  job.queries = min(job.queries - skipped, tiles * BackwardTraits::kQueries);
  job.query_token += skipped;
  job.diagonal -= skipped;
  job.tile += first;
}

// The job at `index` of `key_blocks` blocks of each group. Only one thread calls it: the divisions take registers.
template <bool kPacked>
__device__ __forceinline__ void make_job(const BackwardParams& p, int key_blocks, int index, BackwardJob& job) {
  const BackwardSchedule& schedule = p.schedule;
  const auto part = [&] { return static_cast<int>(blockIdx.x) / sm90::recompute(schedule.jobs()); };
  if (!kPacked && schedule.in_parts()) index -= part() * schedule.jobs();
  const int first_group = index / sm90::recompute(schedule.section_groups * key_blocks) * schedule.section_groups;
  const int width = min(schedule.section_groups, schedule.groups - first_group);
  const int rest = index - first_group * key_blocks;
  const int block = rest / width;
  const int group = first_group + rest - block * width;
  if constexpr (kPacked) {
    const auto* const from = reinterpret_cast<const uint4*>(p.workspace.jobs + block);
#pragma unroll 1
    for (int i = 0; i < BackwardTraits::kJobBytes / 16; ++i) reinterpret_cast<uint4*>(&job)[i] = from[i];
    job.head = group;
  } else {
    job = job_of_block(block, p.s_q, sm90::recompute(p.s_k), p.causal, schedule.run_blocks);
    job.batch = group / sm90::recompute(p.heads);
    job.head = group - job.batch * p.heads;
    job.tile = job.batch * p.sequence_tiles;
    job.key_row = job.batch * p.s_k + job.key_token;
    if (schedule.in_parts()) cut_part(job, part(), schedule.part_tiles);
  }
}

// In the list of jobs of all groups: the first one behind the run of this job in its section.
template <bool kPacked>
__device__ __forceinline__ int end_of_run(const BackwardParams& p, const BackwardJob& job) {
  const BackwardSchedule& schedule = p.schedule;
  const int key_blocks = sm90::recompute(kPacked ? *p.workspace.job_count : schedule.key_blocks);
  const int group = job.batch * p.heads + job.head;
  const int first_group = group / sm90::recompute(schedule.section_groups) * schedule.section_groups;
  const int width = min(schedule.section_groups, schedule.groups - first_group);
  return first_group * key_blocks + (job.block + job.blocks_after + 1) * width;
}

// How many key blocks add to dQ of this query tile before this job does, where the order is fixed. In any case the
// first one stores, except that jobs in parts add to zeros. Runs of key blocks ascend, and inside of a run blocks
// DEscend: all jobs of a run walk side by side, each from its own diagonal on, and the last one comes to a tile first.
//
// Nobody waits for ever. Jobs are taken in the order of the list; in it the runs of a group ascend, and the jobs of one
// run in all groups of a section follow each other without a gap. Either a run is one block, so that a job waits for
// earlier jobs of the list only; or these jobs are at most as many as the kernel has computing blocks, which all run (a
// cooperative launch). Jobs in parts wait for no addition. Take the first run in the list that is not done. A block
// does not take a second job of it before its first one is done (KeyAndQueryLoader::run), and what else it holds is of
// earlier runs, so done soon. So no job of the run is held behind another one of it, and all of them are taken in the
// end, as there are blocks enough. A job of it at tile t waits for one that has not added to t yet, so that stands at
// an earlier tile, or at t with fewer additions before it, or (as a block sends the halves of a tile one after the
// other) at t's other half. Along such a chain (tile, half, additions before) only falls: it ends at a job that waits
// for nobody.
__device__ __forceinline__ int additions_before(const BackwardJob& job, int tile) {
  const int last_query = tile * BackwardTraits::kQueries + BackwardTraits::kQueries - 1;
  // Blocks after this one whose keys are seen in this tile.
  return job.blocks_before_run + min(job.blocks_after, (last_query - job.diagonal) / BackwardTraits::kKeys);
}

}  // namespace lathe::ops::cuda
