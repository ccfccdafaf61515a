// Shapes of the cross-entropy that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct CrossEntropyCase {
  std::string name;
  std::int64_t rows;
  std::int64_t vocab;
  std::int64_t padding;       // elements between rows
  std::int64_t ignore_every;  // row ignore_every - 1, 2 * ignore_every - 1, ... is ignored; 0: none
};

inline std::vector<CrossEntropyCase> cross_entropy_cases() {
  return {
      {"NoRows", 0, 8, 0, 0},
      {"OneOfAll", 1, 1, 0, 0},
      {"AllIgnored", 3, 5, 2, 1},
      {"OddSizes", 7, 13, 3, 3},
      {"ManyChunks", 301, 77, 5, 4},
      {"LargeVocab", 5, 5003, 1, 2},
      // On a GPU a row of 13312 is one block's, a longer one a cluster's, and from 450561 on it is read twice.
      {"OneBlock", 3, 13312, 0, 3},
      {"TwoBlocks", 3, 13316, 4, 3},
      {"OddBlocks", 3, 53249, 1, 2},
      {"Cluster", 2, 450560, 0, 0},
      {"TwoReadings", 2, 460004, 0, 2},
      {"OddReadings", 2, 450561, 1, 0},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<CrossEntropyCase> cross_entropy_workload() {
  return {
      {"Bytes", 2048, 258, 0, 16},
  };
}

}  // namespace lathe::cases
