#include "lathe/run_config_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "lathe/setting_rules.h"

namespace lathe {
namespace {

// toml++'s tables are sorted by key; errors and dumps follow the file.
struct Placed {
  toml::source_position position;
  TomlEntry entry;
};

Json to_json(const toml::node& node, std::string_view where) {
  if (const auto* value = node.as_string()) return Json(value->get());
  if (const auto* value = node.as_integer()) return Json(value->get());
  if (const auto* value = node.as_floating_point()) return Json(value->get());
  if (const auto* value = node.as_boolean()) return Json(value->get());
  if (const auto* array = node.as_array()) {
    Json::Array items;
    for (const toml::node& item : *array) items.push_back(to_json(item, where));
    return Json(std::move(items));
  }
  if (const auto* table = node.as_table()) {
    Json::Object members;
    for (const auto& [key, value] : *table) members.push_back({std::string(key.str()), to_json(value, where)});
    return Json(std::move(members));
  }
  refuse("{}: a date or time, which no key takes; a string stands in quotes", where);
}

toml::table parse(std::string_view text, const std::string& source) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    refuse("{} line {}: {}", source, error.source().begin.line, error.description());
  }
}

Placed placed(const std::string& key, const toml::node& node, const std::string& source) {
  const toml::source_position position = node.source().begin;
  const std::string where = fmt::format("{} line {}", source, position.line);
  return {position, {key, to_json(node, fmt::format("{}: {}", where, key)), where}};
}

// VALUE as TOML if it is exactly one value, else as a string, which TOML holds to UTF-8.
Json override_value(const std::string& text, const std::string& where) {
  try {
    const toml::table document = toml::parse("value = " + text);
    if (document.size() == 1) return to_json(document.begin()->second, where);
  } catch (const toml::parse_error&) {
  }
  return to_json(*parse("value = " + quote_toml(text), where).get("value"), where);
}

}  // namespace

std::vector<TomlEntry> read_toml_file(const std::filesystem::path& file) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  const std::string source = file.string();
  const toml::table document = parse(read_text_file(file, kMaxBytes), source);
  std::vector<Placed> entries;
  for (const auto& [section, node] : document) {
    const std::string name(section.str());
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      const bool quoted = name.find('.') != std::string::npos;  // no "training.seed" = 1 as a key of its own
      entries.push_back(placed(quoted ? quote_toml(name) : name, node, source));
      continue;
    }
    for (const auto& [key, value] : *table)
      entries.push_back(placed(fmt::format("{}.{}", name, key.str()), value, source));
    if (table->empty()) entries.push_back({table->source().begin, {name, Json(Json::Object{}), source}});
  }
  std::ranges::stable_sort(entries, [](const Placed& a, const Placed& b) {
    return std::pair(a.position.line, a.position.column) < std::pair(b.position.line, b.position.column);
  });
  std::vector<TomlEntry> result;
  for (Placed& item : entries) result.push_back(std::move(item.entry));
  return result;
}

TomlEntry read_override(std::string_view text) {
  const std::size_t equals = text.find('=');
  require(equals != std::string_view::npos && equals > 0, "--set {}: expected section.key=value",
          shown_value(std::string(text)));
  const std::string key(text.substr(0, equals));
  const std::string value(text.substr(equals + 1));
  return {key, override_value(value, fmt::format("--set {}", key)), "--set"};
}

}  // namespace lathe
