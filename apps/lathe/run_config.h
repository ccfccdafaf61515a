// run.toml and --set into a RunConfig.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace lathe {

// Reads `file`, then each "section.key=value" of `overrides`, the last of equal keys winning; the values in effect are
// checked one by one and against each other. Throws InputError with the place, the key, the value and what is allowed.
// The dump (RunConfig::toml) read as a file in the same folder gives the same settings.
RunConfig load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace lathe
