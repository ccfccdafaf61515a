// `lathe data stats` and `lathe data show`
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace lathe {

struct DataStatsOptions {
  std::filesystem::path prefix;
  std::optional<std::filesystem::path> against;
};

void run_data_stats(const DataStatsOptions& options);

struct DataShowOptions {
  std::filesystem::path prefix;
  std::int64_t sample = 0;
  std::int64_t sequence_length = 2048;
  std::string tokenizer = "bytes";
};

void run_data_show(const DataShowOptions& options);

}  // namespace lathe
