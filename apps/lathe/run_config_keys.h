// The keys of run.toml: one row each, which drives reading, defaults, suggestions, the dump and what --resume compares.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"
#include "lathe/setting_rules.h"
#include "train/run_config.h"

namespace lathe {

struct RunConfigKey {
  std::string_view name;  // "training.seed"
  bool fixed_on_resume = false;
  // Stores the value, or returns why not: "expected ...".
  std::function<std::string(RunConfig&, const Json&, const PathRule&)> read;
  // The value in TOML.
  std::function<std::string(const RunConfig&)> write;

  std::string_view section() const { return name.substr(0, name.find('.')); }
  std::string_view short_name() const { return name.substr(name.find('.') + 1); }
};

// Section by section, in the order of the documentation.
std::span<const RunConfigKey> run_config_keys();

}  // namespace lathe
