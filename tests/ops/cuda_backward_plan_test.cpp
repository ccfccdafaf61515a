// The plan of the Hopper backward keeps what its kernels rely on, for any sizes: no device needed.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ops/cuda/mla_sm90/backward_plan.h"

namespace lathe::ops::cuda {
namespace {

MlaAttentionProblem dense(std::int64_t sequences, std::int64_t s_q, std::int64_t s_k, std::int64_t heads,
                          bool deterministic) {
  MlaAttentionProblem problem;
  problem.sequences = sequences;
  problem.s_q = s_q;
  problem.s_k = s_k;
  problem.h = heads;
  problem.deterministic = deterministic;
  return problem;
}

std::vector<MlaAttentionProblem> problems() {
  std::vector<MlaAttentionProblem> all;
  for (const std::int64_t s_q : {1, 64, 333, 512, 1000, 1024, 2048, 3072, 4096, 8192, 8193, 16384, 32768})
    for (const std::int64_t s_k : {s_q, std::int64_t{1}, std::int64_t{700}, 3 * s_q})
      for (const std::int64_t heads : {1, 2, 5, 12, 16, 20, 64, 128})
        for (const std::int64_t sequences : {1, 3, 8, 32})
          for (const bool deterministic : {false, true})
            for (const bool causal : {false, true})
              for (const bool packed : {false, true}) {
                MlaAttentionProblem problem = dense(sequences, s_q, s_k, heads, deterministic);
                problem.causal = causal;
                problem.packed = packed;
                all.push_back(problem);
              }
  return all;
}

std::string text(const MlaAttentionProblem& p, int multiprocessors) {
  return std::to_string(p.sequences) + " sequences of " + std::to_string(p.s_q) + " queries and " +
         std::to_string(p.s_k) + " keys, " + std::to_string(p.h) + " heads, " + (p.causal ? "causal" : "full") +
         (p.packed ? ", packed" : "") + (p.deterministic ? ", deterministic" : "") + ", " +
         std::to_string(multiprocessors) + " multiprocessors";
}

// H20, H100 PCIe, H100 SXM, and less than any rule was made for.
constexpr int kDevices[] = {1, 3, 78, 114, 132};

TEST(BackwardPlan, AllBlocksFitAndNobodyWaitsForEver) {
  for (const int multiprocessors : kDevices)
    for (const MlaAttentionProblem& problem : problems()) {
      SCOPED_TRACE(text(problem, multiprocessors));
      const BackwardPlan plan = plan_backward(problem, multiprocessors);
      const BackwardSchedule& schedule = plan.schedule;
      const std::int64_t jobs = backward_jobs(problem);
      ASSERT_GE(plan.blocks, 1);
      ASSERT_GE(plan.converting_blocks, 0);
      ASSERT_LE(plan.blocks + plan.converting_blocks, multiprocessors);
      ASSERT_LE(plan.blocks, jobs * schedule.parts);
      ASSERT_GE(schedule.section_groups, 1);
      ASSERT_LE(schedule.section_groups, schedule.groups);
      if (schedule.section_groups == schedule.groups) {
        ASSERT_EQ(plan.converting_blocks, 0);
      }
      ASSERT_GE(schedule.run_blocks, 1);
      if (schedule.run_blocks > 1) {
        ASSERT_LE(schedule.run_blocks * schedule.section_groups, plan.blocks);
      }
      // Parts are each a block's only one, and the workspace holds what they hand over.
      ASSERT_GE(schedule.parts, 1);
      if (schedule.parts > 1) {
        ASSERT_EQ(plan.blocks, jobs * schedule.parts);
        ASSERT_FALSE(problem.packed || problem.deterministic);
        ASSERT_EQ(plan.converting_blocks, 0);
        ASSERT_LE(schedule.parts * jobs, backward_parts_handed_over(problem));
        ASSERT_GE(schedule.part_tiles, 2);
        ASSERT_LT((schedule.parts - 1) * schedule.part_tiles * BackwardTraits::kQueries, problem.s_q);
        if (!problem.causal) {
          ASSERT_GE(schedule.parts * schedule.part_tiles * BackwardTraits::kQueries, problem.s_q);
        }
      }
    }
}

TEST(BackwardPlan, WorkspaceIsTheSameInBothModes) {
  for (MlaAttentionProblem problem : problems()) {
    const std::int64_t handed_over = backward_parts_handed_over(problem);
    problem.deterministic = !problem.deterministic;
    ASSERT_EQ(handed_over, backward_parts_handed_over(problem)) << text(problem, 132);
  }
}

// What docs/performance.md says was taken.
TEST(BackwardPlan, MeasuredShapes) {
  const struct {
    std::int64_t sequences, tokens, heads;
    bool deterministic;
    int section_groups, converting_blocks, run_blocks, parts;
  } cases[] = {
      {1, 512, 16, false, 16, 0, 8, 2},   {1, 2048, 16, false, 16, 0, 8, 1},  {1, 2048, 16, true, 16, 0, 8, 1},
      {1, 4096, 16, false, 8, 4, 16, 1},  {1, 4096, 16, true, 8, 4, 16, 1},   {1, 3072, 16, true, 16, 0, 8, 1},
      {1, 8192, 16, false, 4, 3, 32, 1},  {1, 16384, 16, false, 4, 0, 33, 1}, {1, 32768, 16, false, 2, 0, 66, 1},
      {8, 2048, 16, false, 16, 7, 7, 1},  {8, 2048, 16, true, 8, 4, 16, 1},   {4, 4096, 16, false, 8, 4, 16, 1},
      {32, 512, 16, false, 16, 10, 7, 1}, {32, 512, 16, true, 16, 6, 7, 1},   {16, 1024, 16, true, 8, 4, 16, 1},
      {2, 2048, 16, false, 16, 7, 7, 1},  {1, 8192, 5, false, 5, 0, 26, 1},   {1, 2048, 2, false, 2, 0, 64, 4},
      {1, 1024, 4, false, 4, 0, 32, 4},   {1, 2048, 2, true, 2, 0, 16, 1},    {1, 4096, 2, false, 2, 0, 64, 2},
      {1, 384, 16, false, 16, 0, 6, 2},   {1, 256, 16, false, 16, 0, 4, 2},   {1, 512, 4, false, 4, 0, 16, 4},
      {1, 512, 16, true, 16, 0, 4, 1},
  };
  for (const auto& expected : cases) {
    const MlaAttentionProblem problem =
        dense(expected.sequences, expected.tokens, expected.tokens, expected.heads, expected.deterministic);
    SCOPED_TRACE(text(problem, 132));
    const BackwardPlan plan = plan_backward(problem, 132);
    EXPECT_EQ(plan.schedule.section_groups, expected.section_groups);
    EXPECT_EQ(plan.converting_blocks, expected.converting_blocks);
    EXPECT_EQ(plan.schedule.run_blocks, expected.run_blocks);
    EXPECT_EQ(plan.schedule.parts, expected.parts);
  }
}

}  // namespace
}  // namespace lathe::ops::cuda
