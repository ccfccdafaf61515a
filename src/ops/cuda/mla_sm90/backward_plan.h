// Which blocks of the backward's main kernel work on what: decided on the host, from the problem's sizes alone.
#pragma once

#include <cstdint>

#include "ops/cuda/mla_sm90/backward_params.h"
#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

// Pieces of `size` tokens of the sequences of one head: of packed ones, as many numbers as they may have (first_piece).
std::int64_t backward_pieces(const MlaAttentionProblem& problem, std::int64_t tokens, int size);
// What shares a dQ: (batch, head) pairs, or heads where sequences are packed.
std::int64_t backward_groups(const MlaAttentionProblem& problem);
// Key blocks of all groups; of packed sequences at most so many.
std::int64_t backward_jobs(const MlaAttentionProblem& problem);
// Parts of jobs that hand their sums over: at most so many on any Hopper GPU, in either mode.
std::int64_t backward_parts_handed_over(const MlaAttentionProblem& problem);

struct BackwardPlan {
  BackwardSchedule schedule;
  int blocks = 0;             // of the main kernel that compute
  int converting_blocks = 0;  // and that convert dQ
};

// For a problem with queries and keys. Blocks wait for each other (backward_jobs.cuh): all of them fit on the device,
// and either a run is one key block, or its jobs in all groups of a section are at most as many as there are blocks.
BackwardPlan plan_backward(const MlaAttentionProblem& problem, int multiprocessors);

}  // namespace lathe::ops::cuda
