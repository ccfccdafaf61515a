// Shapes of the balance loss that tests and benchmarks share.
#pragma once

#include <string>
#include <vector>

#include "core/tensor_view.h"

namespace lathe::cases {

struct LoadBalanceCase {
  std::string name;
  std::int64_t tokens;
  std::int64_t num_experts;
  std::int64_t k;
  std::int64_t scopes = 1;
};

inline std::vector<LoadBalanceCase> load_balance_cases() {
  return {
      {"OneToken", 1, 3, 2},
      {"OddSizes", 67, 7, 3},
      {"Sequences", 36, 6, 2, 4},
      {"OneTokenSequences", 5, 4, 1, 5},
      {"SeveralChunks", 1030, 5, 2, 2},
      {"V2Lite", 300, 64, 6},
  };
}

}  // namespace lathe::cases
