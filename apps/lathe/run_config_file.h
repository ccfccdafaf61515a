// run.toml and --set as plain values, not yet judged. The TOML parser is seen by run_config_file.cpp alone.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace lathe {

struct TomlEntry {
  std::string key;  // "training.seed"; without a dot if it stands outside every table
  Json value;
  std::string where;  // "run.toml line 7" or "--set"
};

// Every key of the file, in its order. Throws InputError with the line: unreadable, over 1 MiB, bad syntax, a key
// twice, dates (no key takes one).
std::vector<TomlEntry> read_toml_file(const std::filesystem::path& file);

// "section.key=value": the value as TOML, and as a string where that fails.
TomlEntry read_override(std::string_view text);

}  // namespace lathe
