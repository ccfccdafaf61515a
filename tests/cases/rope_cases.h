// Shapes of the rotary embedding that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct RopeCase {
  std::string name;
  std::int64_t tokens;
  std::int64_t heads;
  std::int64_t d;
  std::int64_t positions;
};

inline std::vector<RopeCase> rope_cases() {
  return {
      {"OnePair", 1, 1, 2, 1},       {"NoTokens", 0, 3, 8, 5},      {"OddSizes", 67, 3, 10, 90},
      {"OneHead", 130, 1, 16, 1000}, {"ManyHeads", 65, 16, 64, 65},
  };
}

}  // namespace lathe::cases
