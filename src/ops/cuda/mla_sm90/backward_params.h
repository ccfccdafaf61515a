// What the backward's three kernels are told, and what they hand to each other.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/mla_sm90/backward_traits.h"

namespace lathe::ops::cuda {

// 128 keys of a head. Query i of the sequence sees key r of the block if i >= diagonal + r.
struct alignas(16) BackwardJob {
  int head = 0;  // negative: there are no more jobs
  int batch = 0;
  int query_token = 0, queries = 0;  // of the sequence
  int key_token = 0, keys = 0;       // of the block; 1 to 128 keys
  int key_row = 0;                   // of its first key in the memory for dk_pe
  int tile = 0;                      // the sequence's first query tile among those of a head
  int diagonal = 0;                  // not causal: far below 0
  // For a fixed order of additions (additions_before): key blocks of the sequence in the runs before this block's
  // run, and blocks after it in its run.
  int blocks_before_run = 0, blocks_after = 0;
  int block = 0;  // its number among the key blocks of a group, in the order of the list
  int parts = 1;  // that the keys' job was cut into, of which this is one: see BackwardSchedule
};
static_assert(sizeof(BackwardJob) == BackwardTraits::kJobBytes);

// The order of jobs: key blocks, longest first, as a long job taken last would run alone; groups ((batch, head) pairs,
// or heads where sequences are packed) innermost, in sections whose dQ fits the second-level cache.
struct BackwardSchedule {
  int key_blocks = 0;  // of a group; of packed sequences it is known on the device only
  int groups = 0;
  int section_groups = 0;
  int run_blocks = 1;  // key blocks of a run: see BackwardJob
  // Where there are multiprocessors for it, jobs are cut into parts by their queries: index part * jobs() + job, each a
  // block's only one.
  int parts = 1;
  int part_tiles = 0;  // query tiles of a part

  __device__ __forceinline__ bool in_parts() const { return parts > 1; }
  __device__ __forceinline__ int jobs() const { return key_blocks * groups; }  // not of packed sequences
};

// bf16 rows of a tensor, strides in elements.
struct BackwardRows {
  __nv_bfloat16* data = nullptr;
  std::int64_t batch_stride = 0, token_stride = 0, head_stride = 0;

  __device__ __forceinline__ __nv_bfloat16* at(int batch, int token, int head) const {
    return data + batch * batch_stride + token * token_stride + head * head_stride;
  }
};
// fp32, one value a query and head.
struct BackwardStats {
  const float* data = nullptr;
  std::int64_t batch_stride = 0, head_stride = 0;

  __device__ __forceinline__ float at(int batch, int token, int head) const {
    return data[batch * batch_stride + head * head_stride + token];
  }
};

// Rows of packed sequences in a query tile; tiles of all sequences are numbered in one row, with gaps.
struct BackwardTileRows {
  int token = 0;
  int rows = 0;
};

constexpr int kGroupDoneStride = 32;  // a line of the cache for each counter that many wait for

// Device memory that a call fills and uses up; nothing in it outlives the call. Tiles are of 64 queries.
struct BackwardWorkspace {
  int* next_job = nullptr;  // counts from the number of blocks on: block i begins with job i
  float* stats = nullptr;   // [head][tile][lse x log2(e), delta][64]; no such row, or one without keys: +inf, 0
  float* dq = nullptr;      // [head][tile][half][12][128 threads][4], not yet scaled
  // [head][key][64] in a fixed order of sums; else [key][64], to which all heads add.
  float* dk_pe = nullptr;
  // [head][tile][half]: additions made (not in a fixed order: only the first is counted). Where jobs are in parts, dq
  // begins as zeros, which are the first.
  int* semaphores = nullptr;
  // Packed sequences.
  BackwardTileRows* tile_rows = nullptr;  // [tile]
  BackwardJob* jobs = nullptr;            // of head 0, longest first
  int* job_count = nullptr;
  uint4* zeros = nullptr;  // kKeys rows of a panel
  // Jobs in parts, of each part.
  float4* part_sums = nullptr;  // [consumer][dV, dK's nope columns][16][128 threads], not yet scaled
  int* parts_done = nullptr;    // [consumer]
  // Where the main kernel converts dQ.
  int* next_half = nullptr;    // of dQ, to convert
  int* groups_done = nullptr;  // [group][kGroupDoneStride], the first of each: jobs whose dQ has arrived, by halves
};

struct BackwardParams {
  BackwardRows out, dout, dq_nope, dq_pe, dk_nope, dk_pe, dv;
  BackwardStats lse, dlse;
  int heads = 0;
  int sequences = 0;
  int s_q = 0, s_k = 0;    // of a sequence; packed: of all
  int sequence_tiles = 0;  // query tiles of a sequence; not used where they are packed
  int tiles = 0;           // query tiles of a head over all sequences, gaps included
  int key_rows = 0;        // keys over all sequences
  bool causal = true;
  bool deterministic = false;
  float scale = 0;  // of the scores
  float scale_log2e = 0;
  int multiprocessors = 0;
  int blocks = 0;  // of the main kernel that compute
  // Blocks of the main kernel behind them that convert dQ; the conversion kernel does it if there are none.
  int converting_blocks = 0;
  BackwardSchedule schedule;
  BackwardWorkspace workspace;
  std::uint64_t* clock_counters = nullptr;
  const int* cu_seqlens_q = nullptr;  // packed sequences, else none
  const int* cu_seqlens_k = nullptr;
};

// {64 columns, head, token, panel, batch}. Boxes are 64 queries or 128 keys of one head and all panels; of k_nope one
// panel, and of what is written one panel of 64 keys.
struct BackwardMaps {
  CUtensorMap q_nope, q_pe, k_nope, k_pe, v, dout, dk_nope, dv;
};

}  // namespace lathe::ops::cuda
