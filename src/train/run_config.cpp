#include "train/run_config.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

// RunConfig::toml back into keys and values. It is written one `key = value` a line under `[section]` lines, with every
// line break inside a string escaped.
std::vector<RunConfig::Setting> settings_of(std::string_view toml) {
  std::vector<RunConfig::Setting> settings;
  std::string section;
  while (!toml.empty()) {
    const std::size_t end = std::min(toml.find('\n'), toml.size());
    const std::string_view line = toml.substr(0, end);
    toml.remove_prefix(std::min(end + 1, toml.size()));
    const std::size_t equals = line.find(" = ");
    if (line.starts_with('[') && line.ends_with(']'))
      section = line.substr(1, line.size() - 2);
    else if (equals != std::string_view::npos)
      settings.push_back({section + "." + std::string(line.substr(0, equals)), std::string(line.substr(equals + 3))});
  }
  return settings;
}

const RunConfig::Setting* find_key(const std::vector<RunConfig::Setting>& settings, std::string_view key) {
  const auto found = std::ranges::find(settings, key, &RunConfig::Setting::key);
  return found == settings.end() ? nullptr : &*found;
}

}  // namespace

std::optional<std::string> saved_setting(std::string_view saved_toml, std::string_view key) {
  const std::vector<RunConfig::Setting> settings = settings_of(saved_toml);
  const RunConfig::Setting* setting = find_key(settings, key);
  return setting == nullptr ? std::nullopt : std::optional(setting->value);
}

std::vector<SettingChange> changed_settings(std::string_view saved_toml,
                                            const std::vector<RunConfig::Setting>& current) {
  const std::vector<RunConfig::Setting> saved = settings_of(saved_toml);
  std::vector<SettingChange> changes;
  for (const RunConfig::Setting& now : current) {
    const RunConfig::Setting* before = find_key(saved, now.key);
    if (before == nullptr)
      changes.push_back({now.key, "unset", now.value, false});
    else if (before->value != now.value)
      changes.push_back({now.key, before->value, now.value, now.fixed_on_resume});
  }
  for (const RunConfig::Setting& before : saved)
    if (find_key(current, before.key) == nullptr) changes.push_back({before.key, before.value, "unset", false});
  return changes;
}

std::vector<SettingChange> require_resumable(std::string_view saved_toml, const RunConfig& config) {
  std::vector<SettingChange> changes = changed_settings(saved_toml, config.settings);
  std::string refused;
  for (const SettingChange& change : changes) {
    if (!change.refused) continue;
    if (!refused.empty()) refused += "; ";
    refused += fmt::format("{} was {} and is now {}", change.key, change.saved, change.current);
  }
  require(refused.empty(), "--resume: {}: this changes the model or the order of samples; keep the saved run's value",
          refused);
  return changes;
}

}  // namespace lathe
