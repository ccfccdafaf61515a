// `lathe bench step`
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lathe {

struct BenchStepOptions {
  std::filesystem::path config;
  std::vector<std::string> set;  // "section.key=value"
  std::int64_t steps = 10;
  std::int64_t warmup = 3;
  std::optional<std::filesystem::path> out;
};

// Trains the first steps of a run and says what their time goes into. The run's folder is not touched.
void run_bench_step(const BenchStepOptions& options);

}  // namespace lathe
