// Shapes of RMSNorm that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct RmsNormCase {
  std::string name;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t padding;  // elements between rows
  bool residual;
};

inline std::vector<RmsNormCase> rms_norm_cases() {
  return {
      {"NoRows", 0, 8, 0, true},       {"OneOfAll", 1, 1, 0, false},     {"OddSizes", 7, 13, 3, false},
      {"OddResidual", 5, 17, 2, true}, {"ManyChunks", 131, 33, 1, true}, {"V2Lite", 33, 2048, 0, true},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<RmsNormCase> rms_norm_workload() {
  return {
      {"Latent", 2048, 64, 16, false},
      {"Hidden", 2048, 128, 0, true},
  };
}

}  // namespace lathe::cases
