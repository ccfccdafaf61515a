// Shapes of linear layers that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct LinearCase {
  std::string name;
  std::int64_t rows;
  std::int64_t in;
  std::int64_t out;
  std::int64_t padding;  // elements between rows
};

inline std::vector<LinearCase> linear_cases() {
  return {
      {"NoRows", 0, 5, 3, 0},
      {"OneOfAll", 1, 1, 1, 0},
      {"OneRow", 1, 67, 35, 2},
      {"OneColumn", 9, 1, 4, 0},
      {"OddSizes", 7, 13, 11, 3},
      {"FewRows", 31, 40, 70, 1},
      {"TransposedCopy", 45, 19, 37, 5},
      {"OddTiles", 301, 77, 131, 1},
      {"Deep", 40, 600, 530, 0},
      {"ManyRows", 1100, 24, 20, 0},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<LinearCase> linear_workload() {
  return {
      {"Query", 2048, 128, 192, 0},  {"LatentDown", 2048, 128, 80, 0}, {"LatentUp", 2048, 64, 256, 16},
      {"Output", 2048, 128, 128, 0}, {"DenseUp", 2048, 128, 1024, 0},  {"DenseDown", 2048, 512, 128, 0},
      {"Router", 2048, 128, 8, 0},   {"Head", 2048, 128, 258, 0},
  };
}

}  // namespace lathe::cases
