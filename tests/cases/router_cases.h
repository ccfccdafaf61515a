// Shapes and settings of the router that tests and benchmarks share.
#pragma once

#include <string>
#include <vector>

#include "ops/router.h"

namespace lathe::cases {

struct RouterCase {
  std::string name;
  std::int64_t tokens;
  std::int64_t num_experts;
  std::int64_t k;
  ops::TopkMethod method = ops::TopkMethod::greedy;
  std::int64_t num_groups = 1;
  std::int64_t topk_group = 1;
  double scaling_factor = 1.0;
  bool normalize = false;
  std::int64_t scopes = 1;  // of the balance loss
};

inline std::vector<RouterCase> router_cases() {
  using enum ops::TopkMethod;
  return {
      {"OneExpert", 3, 1, 1},
      {"AllExperts", 5, 4, 4, greedy, 1, 1, 2.5},
      {"OddSizes", 67, 7, 3, greedy, 1, 1, 0.75},
      {"Normalized", 33, 8, 2, greedy, 1, 1, 16.0, true},
      {"NormalizedOneChoice", 6, 5, 1, greedy, 1, 1, 1.0, true},
      {"Sequences", 36, 6, 2, greedy, 1, 1, 1.5, false, 4},
      {"Groups", 21, 12, 3, group_limited_greedy, 4, 2, 1.25, false, 3},
      {"GroupsNormalized", 10, 16, 4, group_limited_greedy, 8, 3, 1.0, true},
      {"GroupsFull", 9, 6, 4, group_limited_greedy, 3, 2},
      {"GroupsOfOne", 9, 6, 2, group_limited_greedy, 6, 2},
      {"OneGroup", 9, 6, 2, group_limited_greedy, 1, 1},
      {"V2Lite", 130, 64, 6},
      {"V2", 130, 160, 6, group_limited_greedy, 8, 3, 16.0},
  };
}

}  // namespace lathe::cases
