// Shapes of the attention that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace lathe::cases {

struct MlaAttentionCase {
  std::string name;
  std::int64_t b, s_q, s_k, h, dn, dr, dv;
  bool causal = true;
  // Not empty: packed sequences of these lengths; b is not used, s_q and s_k are the totals.
  std::vector<std::int32_t> q_lengths{};
  std::vector<std::int32_t> k_lengths{};

  bool packed() const { return !q_lengths.empty(); }
};

inline MlaAttentionCase packed_case(std::string name, std::vector<std::int32_t> q, std::vector<std::int32_t> k,
                                    std::int64_t h, std::int64_t dn, std::int64_t dr, std::int64_t dv,
                                    bool causal = true) {
  const std::int64_t s_q = std::accumulate(q.begin(), q.end(), std::int64_t{0});
  const std::int64_t s_k = std::accumulate(k.begin(), k.end(), std::int64_t{0});
  return {std::move(name), 0, s_q, s_k, h, dn, dr, dv, causal, std::move(q), std::move(k)};
}

// Small enough for a reference that makes every score.
inline std::vector<MlaAttentionCase> mla_attention_cases() {
  return {
      {"One", 1, 1, 1, 1, 1, 1, 1},
      {"Odd", 2, 37, 37, 3, 5, 3, 7},
      {"OddFull", 2, 37, 37, 3, 5, 3, 7, false},
      {"TileLess1", 1, 63, 63, 2, 16, 2, 16},
      {"TileExact", 1, 64, 64, 2, 32, 16, 32},
      {"TilePlus1", 1, 65, 65, 2, 33, 17, 31},
      {"TilesFull", 1, 130, 129, 1, 32, 16, 32, false},
      {"TilesCausal", 1, 200, 200, 2, 32, 16, 32},
      {"MoreKeys", 2, 70, 150, 2, 8, 4, 12},
      {"MoreQueries", 2, 150, 70, 2, 8, 4, 12},
      {"MoreQueriesFull", 1, 150, 3, 2, 8, 4, 12, false},
      {"OneQuery", 3, 1, 131, 2, 24, 8, 40},
      {"OneKey", 1, 67, 1, 2, 4, 2, 4},
      {"NoKeys", 1, 5, 0, 2, 4, 2, 4},
      {"NoQueries", 1, 0, 5, 2, 4, 2, 4},
      {"Lite", 1, 70, 70, 2, 128, 64, 128},
      {"SeveralTasks", 1, 20, 4200, 1, 4, 2, 4},
      {"SeveralTasksFull", 1, 270, 2100, 1, 4, 2, 4, false},
      packed_case("Packed", {3, 70, 1, 130}, {3, 70, 1, 130}, 2, 8, 4, 12),
      packed_case("PackedGaps", {0, 5, 0, 0, 66, 0}, {0, 5, 0, 0, 66, 0}, 3, 8, 4, 12),
      packed_case("PackedCross", {4, 0, 80, 9}, {9, 7, 66, 0}, 2, 8, 4, 12),
      packed_case("PackedCrossFull", {4, 0, 80, 9}, {9, 7, 66, 0}, 2, 8, 4, 12, false),
      packed_case("PackedNothing", {0, 0}, {0, 0}, 2, 8, 4, 12),
      packed_case("PackedSeveralTasks", {3, 20}, {3, 2050}, 2, 4, 2, 4),
  };
}

// What training asks for; the first is the quickstart's.
inline std::vector<MlaAttentionCase> mla_attention_bench_cases() {
  return {
      {"Quickstart", 8, 256, 256, 4, 32, 16, 32},
      {"QuickstartFull", 8, 256, 256, 4, 32, 16, 32, false},
      {"TwoHeads", 8, 256, 256, 2, 64, 32, 64},
      {"EightHeads", 8, 256, 256, 8, 32, 16, 32},
      {"Wide", 4, 256, 256, 4, 128, 64, 128},
      {"Lite2K", 1, 2048, 2048, 2, 128, 64, 128},
      packed_case("Documents", {300, 20, 700, 4, 1000, 24}, {300, 20, 700, 4, 1000, 24}, 4, 32, 16, 32),
  };
}

}  // namespace lathe::cases
