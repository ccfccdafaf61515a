// Sizes of AdamW and of the sum of squares that tests and benchmarks share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::cases {

struct ElementwiseCase {
  std::string name;
  std::int64_t count;
};

inline std::vector<ElementwiseCase> elementwise_cases() {
  return {{"None", 0}, {"One", 1}, {"Odd", 37}, {"ManyChunks", 50001}};
}

// The size of `make quickstart`'s model.
inline std::vector<ElementwiseCase> elementwise_workload() { return {{"Model", 1300000}}; }

}  // namespace lathe::cases
