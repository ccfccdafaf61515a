// Shapes of the embedding that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct EmbeddingCase {
  std::string name;
  std::int64_t tokens;
  std::int64_t vocab;
  std::int64_t hidden;
  std::int64_t padding;  // elements between rows
};

inline std::vector<EmbeddingCase> embedding_cases() {
  return {
      {"NoTokens", 0, 5, 8, 0},
      {"OneOfAll", 1, 1, 1, 0},
      {"OddSizes", 37, 11, 13, 3},
      {"WiderThanAChunk", 70, 9, 131, 5},
  };
}

// The shapes of `make quickstart`'s model.
inline std::vector<EmbeddingCase> embedding_workload() {
  return {
      {"Bytes", 2048, 258, 128, 0},
  };
}

}  // namespace lathe::cases
