// Shapes of the permutation that tests and benchmarks share.
#pragma once

#include <string>
#include <vector>

#include "core/tensor_view.h"

namespace lathe::cases {

struct PermuteCase {
  std::string name;
  std::int64_t tokens;
  std::int64_t num_experts;  // the last of several gets no token
  std::int64_t k;
  std::int64_t width;
};

inline std::vector<PermuteCase> permute_cases() {
  return {
      {"OneOfAll", 1, 1, 1, 1},    {"NoTokens", 0, 4, 2, 8},       {"OddSizes", 37, 5, 3, 13},
      {"OneChoice", 65, 6, 1, 17}, {"TwoChoices", 130, 9, 2, 128}, {"FourChoices", 33, 5, 4, 31},
      {"V2Lite", 70, 65, 6, 160},
  };
}

}  // namespace lathe::cases
