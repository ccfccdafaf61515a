// Shapes of grouped linear layers that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct GroupedLinearCase {
  std::string name;
  std::vector<std::int32_t> rows;  // of each group
  std::int64_t unused_rows;        // behind the last group
  std::int64_t in;
  std::int64_t out;
  std::int64_t padding;  // elements between rows
};

inline std::vector<GroupedLinearCase> grouped_linear_cases() {
  return {
      {"NoRows", {0, 0, 0}, 0, 5, 3, 0},
      {"NoGroups", {}, 2, 4, 4, 0},
      {"OneOfAll", {1}, 0, 1, 1, 0},
      {"OddSizes", {3, 0, 7, 1}, 2, 13, 11, 3},
      {"EmptyEnds", {0, 40, 0, 33, 0}, 5, 9, 17, 1},
      {"OddTiles", {0, 290, 1, 31, 32, 130}, 1, 67, 75, 2},
      {"OneGroupHasAll", {0, 0, 600, 0}, 0, 40, 33, 0},
      {"Wide", {40, 3, 34, 0}, 0, 100, 1024, 0},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<GroupedLinearCase> grouped_linear_workload() {
  return {
      {"GateUp", {512, 700, 300, 512, 600, 424, 1000, 48}, 0, 128, 256, 0},
      {"Down", {512, 700, 300, 512, 600, 424, 1000, 48}, 0, 128, 128, 0},
  };
}

}  // namespace lathe::cases
