#include "lathe/run_config.h"

#include <algorithm>
#include <limits>
#include <set>
#include <string_view>

#include "core/error.h"
#include "lathe/nearest_name.h"
#include "lathe/run_config_file.h"
#include "lathe/run_config_keys.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

const RunConfigKey* find_key(std::string_view name) {
  const auto keys = run_config_keys();
  const auto found = std::ranges::find(keys, name, &RunConfigKey::name);
  return found == keys.end() ? nullptr : &*found;
}

// The known key that `name` may mean: the same word in another table, else the one fewest edits away.
std::string_view suggestion(std::string_view name) {
  const std::string_view word = name.substr(name.find('.') + 1);
  std::vector<std::string_view> known;
  for (const RunConfigKey& key : run_config_keys()) {
    if (key.short_name() == word) return key.name;
    known.push_back(key.name);
  }
  return nearest_name(name, known);
}

[[noreturn]] void refuse_unknown_key(const TomlEntry& entry) {
  const bool in_table = entry.key.find('.') != std::string::npos;
  std::vector<std::string_view> sections;
  for (const RunConfigKey& key : run_config_keys()) sections.push_back(key.section());
  const std::string_view section = std::string_view(entry.key).substr(0, entry.key.find('.'));
  const bool known_section = std::ranges::find(sections, section) != sections.end();
  const std::string name = shown_value(entry.key);
  if (!in_table && known_section)
    refuse("{}: {} = {}: expected a table, [{}]", entry.where, name, shown_value(entry.value), entry.key);
  if (!in_table && entry.value.is_object())
    refuse("{}: unknown table {}, the nearest known is [{}]", entry.where, name, nearest_name(section, sections));
  refuse("{}: unknown key {}, the nearest known is {}", entry.where, name, suggestion(entry.key));
}

// The entry in effect of every key given: the last one. Unknown keys are refused wherever they stand.
std::vector<const TomlEntry*> entries_in_effect(const std::vector<TomlEntry>& entries) {
  std::vector<const TomlEntry*> in_effect;
  for (const TomlEntry& entry : entries) {
    const bool empty_table = entry.value.is_object() && entry.value.object().empty();
    if (find_key(entry.key) == nullptr) {
      const bool known_section =
          std::ranges::any_of(run_config_keys(), [&](const RunConfigKey& key) { return key.section() == entry.key; });
      if (empty_table && known_section) continue;
      refuse_unknown_key(entry);
    }
    const auto same = std::ranges::find(in_effect, entry.key, &TomlEntry::key);
    if (same != in_effect.end())
      *same = &entry;
    else
      in_effect.push_back(&entry);
  }
  return in_effect;
}

void apply(const TomlEntry& entry, const PathRule& paths, RunConfig& config) {
  const std::string problem = find_key(entry.key)->read(config, entry.value, paths);
  require(problem.empty(), "{}: {} = {}: {}", entry.where, entry.key, shown_value(entry.value), problem);
}

// How a path is recorded: as it would stand in run.toml, so that a folder with its runs can be moved. Absolute paths
// stay so unless they lie in run.toml's folder.
fs::path recorded_path(const fs::path& path, const fs::path& folder, bool from_override) {
  const fs::path home = (fs::current_path() / folder).lexically_normal();
  const fs::path place = (from_override ? fs::absolute(path) : home / path).lexically_normal();
  const fs::path relative = place.lexically_relative(home);
  const bool inside = !relative.empty() && *relative.begin() != "..";
  return path.is_absolute() && !inside ? place : relative;
}

void require_batches(const RunConfig::Training& training, std::string_view file) {
  const std::int64_t micro = training.micro_batch_size;
  require(training.global_batch_size % micro == 0,
          "{}: training.global_batch_size = {} does not divide by training.micro_batch_size = {}", file,
          training.global_batch_size, micro);
  constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();
  require(training.sequence_length * micro <= kMaxTokens,
          "{}: training.sequence_length = {} x training.micro_batch_size = {}: at most {} tokens in a micro-batch",
          file, training.sequence_length, micro, kMaxTokens);
}

void require_schedule(const RunConfig& config, bool min_lr_given, std::string_view file) {
  const RunConfig::Scheduler& schedule = config.scheduler;
  const bool uses_min_lr = schedule.type != "constant" || min_lr_given;
  require(!uses_min_lr || schedule.min_lr <= schedule.max_lr,
          "{}: scheduler.min_lr = {}{} is above scheduler.max_lr = {}", file, schedule.min_lr,
          min_lr_given ? "" : " (the default)", schedule.max_lr);
  require(schedule.type != "wsd" || schedule.warmup_steps + schedule.decay_steps <= config.training.max_steps,
          "{}: scheduler.warmup_steps = {} and scheduler.decay_steps = {} do not fit in training.max_steps = {}", file,
          schedule.warmup_steps, schedule.decay_steps, config.training.max_steps);
}

void record_settings(const RunConfig& recorded, RunConfig& config) {
  std::string_view section;
  for (const RunConfigKey& key : run_config_keys()) {
    if (key.section() != section) config.toml += fmt::format("[{}]\n", key.section());
    section = key.section();
    const std::string value = key.write(recorded);
    config.toml += fmt::format("{} = {}\n", key.short_name(), value);
    config.settings.push_back({std::string(key.name), value, key.fixed_on_resume});
  }
}

}  // namespace

RunConfig load_run_config(const fs::path& file, const std::vector<std::string>& overrides) {
  const std::string name = file.string();
  std::vector<TomlEntry> entries = read_toml_file(file);
  require(!entries.empty(), "{}: empty: model.config and data.train are required", name);
  const std::size_t num_in_file = entries.size();
  for (const std::string& text : overrides) entries.push_back(read_override(text));

  RunConfig config;
  RunConfig recorded;  // the same with paths as they are recorded
  const fs::path folder = file.parent_path();
  std::set<std::string_view> given;
  for (const TomlEntry* entry : entries_in_effect(entries)) {
    const bool from_override = entry >= entries.data() + num_in_file;
    const auto used = [&](const fs::path& path) { return (from_override ? path : folder / path).lexically_normal(); };
    apply(*entry, used, config);
    apply(
        *entry, [&](const fs::path& path) { return recorded_path(path, folder, from_override); }, recorded);
    given.insert(entry->key);
  }
  for (const std::string_view key : {"model.config", "data.train"})
    require(given.contains(key), "{}: {} is missing and required", name, key);
  if (!given.contains("checkpoint.directory")) config.checkpoint.directory = folder / config.checkpoint.directory;
  require_batches(config.training, name);
  require_schedule(config, given.contains("scheduler.min_lr"), name);
  require(config.training.validation_interval == 0 || !config.data.validation.empty(),
          "{}: training.validation_interval = {} needs data.validation, which is empty", name,
          config.training.validation_interval);
  record_settings(recorded, config);
  return config;
}

}  // namespace lathe
