// What a value of run.toml may be, how it is read and how it is written back. `read` stores the value, or returns why
// not ("expected ..."); `write` gives TOML that `read` takes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "train/run_config.h"

namespace lathe {

// A path as written -> the path to use: run.toml's are relative to its folder, those of --set to the current one.
using PathRule = std::function<std::filesystem::path(const std::filesystem::path&)>;

// A value that is valid but not there yet, with what is missing.
struct NotYet {
  std::string_view value;
  std::string_view missing;
};

struct Integer {
  std::int64_t min;
  std::int64_t max = std::numeric_limits<std::int32_t>::max();

  std::string read(const Json& value, const PathRule&, std::int64_t& field) const;
  std::string read(const Json& value, const PathRule&, std::uint64_t& field) const;
  std::string write(std::uint64_t field) const { return std::to_string(field); }
};

// Only 1 for now.
struct ParallelSize {
  std::string read(const Json& value, const PathRule&, std::int64_t& field) const;
  std::string write(std::int64_t field) const { return std::to_string(field); }
};

// Never NaN or infinite.
struct Number {
  enum class Range { positive, not_negative, decay_rate };
  Range range;

  std::string read(const Json& value, const PathRule&, double& field) const;
  std::string write(double field) const;
};

struct Boolean {
  std::string_view true_is_missing = {};  // what `true` lacks; empty: nothing

  std::string read(const Json& value, const PathRule&, bool& field) const;
  std::string write(bool field) const { return field ? "true" : "false"; }
};

struct Choice {
  std::vector<std::string_view> allowed;
  std::vector<NotYet> not_yet = {};

  std::string read(const Json& value, const PathRule&, std::string& field) const;
  std::string write(const std::string& field) const;
};

struct Path {
  std::string read(const Json& value, const PathRule& rule, std::filesystem::path& field) const;
  std::string write(const std::filesystem::path& field) const;
};

// "bytes" or a path.
struct Tokenizer {
  std::string read(const Json& value, const PathRule& rule, std::string& field) const;
  std::string write(const std::string& field) const;
};

// ["prefix", { path = "prefix", weight = 0.7 }]
struct DataSets {
  std::size_t min_count = 0;

  std::string read(const Json& value, const PathRule& rule, std::vector<WeightedData>& field) const;
  std::string write(const std::vector<WeightedData>& field) const;
};

// A list of names of which none is there yet.
struct EmptyList {
  std::vector<std::string_view> later;

  std::string read(const Json& value, const PathRule&, std::vector<std::string>& field) const;
  std::string write(const std::vector<std::string>&) const { return "[]"; }
};

// A TOML basic string.
std::string quote_toml(std::string_view text);

// The value as an error shows it, cut to a readable length.
std::string shown_value(const Json& value);

}  // namespace lathe
