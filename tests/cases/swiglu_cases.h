// Shapes of SwiGLU that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct SwigluCase {
  std::string name;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t padding;  // elements between rows
};

inline std::vector<SwigluCase> swiglu_cases() {
  return {
      {"NoRows", 0, 8, 0},
      {"OneOfAll", 1, 1, 0},
      {"OddSizes", 7, 13, 3},
      {"ManyChunks", 301, 77, 5},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<SwigluCase> swiglu_workload() {
  return {
      {"Dense", 2048, 512, 0},
      {"Experts", 4096, 128, 0},
  };
}

}  // namespace lathe::cases
