#include "lathe/setting_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "lathe/nearest_name.h"

namespace lathe {
namespace {

template <typename T>
std::string read_integer(const Integer& rule, const Json& value, T& field) {
  if (!value.is_integer() || value.integer() < rule.min || value.integer() > rule.max)
    return fmt::format("expected a whole number from {} to {}", rule.min, rule.max);
  field = static_cast<T>(value.integer());
  return {};
}

std::string_view description(Number::Range range) {
  switch (range) {
    case Number::Range::positive:
      return "greater than 0";
    case Number::Range::not_negative:
      return "of at least 0";
    case Number::Range::decay_rate:
      return "from 0 to below 1";
  }
  return {};
}

bool contains(Number::Range range, double value) {
  if (!std::isfinite(value) || value < 0) return false;
  return range == Number::Range::not_negative || (range == Number::Range::positive ? value > 0 : value < 1);
}

std::string read_weighted_data(const Json& value, const PathRule& rule, WeightedData& set) {
  if (value.is_string()) return Path{}.read(value, rule, set.path);
  if (!value.is_object()) return "expected a prefix of .bin and .idx, or { path = ..., weight = ... }";
  for (const Json::Member& member : value.object()) {
    std::string problem;
    if (member.key == "path") {
      problem = Path{}.read(member.value, rule, set.path);
    } else if (member.key == "weight") {
      problem = Number{Number::Range::positive}.read(member.value, rule, set.weight);
    } else {
      constexpr std::array<std::string_view, 2> kKnown{"path", "weight"};
      problem = fmt::format("unknown key, the nearest known is {}", nearest_name(member.key, kKnown));
    }
    if (!problem.empty()) return fmt::format("{}: {}", shown_value(member.key), problem);
  }
  return set.path.empty() ? "path is missing" : "";
}

}  // namespace

std::string Integer::read(const Json& value, const PathRule&, std::int64_t& field) const {
  return read_integer(*this, value, field);
}

std::string Integer::read(const Json& value, const PathRule&, std::uint64_t& field) const {
  return read_integer(*this, value, field);
}

std::string ParallelSize::read(const Json& value, const PathRule& rule, std::int64_t& field) const {
  if (std::string problem = Integer{1}.read(value, rule, field); !problem.empty()) return problem;
  return field == 1 ? "" : "not supported yet: this version runs on one rank";
}

std::string Number::read(const Json& value, const PathRule&, double& field) const {
  if (!value.is_number() || !contains(range, value.number()))
    return fmt::format("expected a number {}", description(range));
  field = value.number();
  return {};
}

std::string Number::write(double field) const {
  std::string text = fmt::format("{}", field);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string Boolean::read(const Json& value, const PathRule&, bool& field) const {
  if (!value.is_bool()) return "expected true or false";
  field = value.boolean();
  return field && !true_is_missing.empty() ? fmt::format("not supported yet: {}", true_is_missing) : "";
}

std::string Choice::read(const Json& value, const PathRule&, std::string& field) const {
  if (!value.is_string() || std::ranges::find(allowed, value.string()) == allowed.end()) {
    const auto later = value.is_string() ? std::ranges::find(not_yet, value.string(), &NotYet::value) : not_yet.end();
    if (later != not_yet.end())
      return fmt::format("not supported yet: {}; expected \"{}\"", later->missing, fmt::join(allowed, "\" or \""));
    return fmt::format("expected \"{}\"", fmt::join(allowed, "\" or \""));
  }
  field = value.string();
  return {};
}

std::string Choice::write(const std::string& field) const { return quote_toml(field); }

std::string Path::read(const Json& value, const PathRule& rule, std::filesystem::path& field) const {
  constexpr std::size_t kMaxBytes = 4095;  // Linux's PATH_MAX, less the end
  if (!value.is_string() || value.string().empty()) return "expected a path";
  const std::string& text = value.string();
  if (text.size() > kMaxBytes) return fmt::format("a path of {} bytes, at most {}", text.size(), kMaxBytes);
  if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20; }))
    return "expected a path without control characters";
  field = rule(text);
  return {};
}

std::string Path::write(const std::filesystem::path& field) const { return quote_toml(field.string()); }

std::string Tokenizer::read(const Json& value, const PathRule& rule, std::string& field) const {
  std::filesystem::path path;
  if (std::string problem = Path{}.read(value, rule, path); !problem.empty())
    return "expected \"bytes\" or a folder with tokenizer.json";
  field = value.string() == "bytes" ? "bytes" : path.string();
  return {};
}

std::string Tokenizer::write(const std::string& field) const { return quote_toml(field); }

std::string DataSets::read(const Json& value, const PathRule& rule, std::vector<WeightedData>& field) const {
  if (!value.is_array()) return R"(expected a list of prefixes of .bin and .idx, as in ["corpus/train"])";
  if (value.array().size() < min_count) return "expected at least one prefix of .bin and .idx";
  std::vector<WeightedData> sets;
  for (const Json& item : value.array()) {
    const std::string problem = read_weighted_data(item, rule, sets.emplace_back());
    if (!problem.empty()) return fmt::format("item {}: {}", sets.size(), problem);
  }
  field = std::move(sets);
  return {};
}

std::string DataSets::write(const std::vector<WeightedData>& field) const {
  std::vector<std::string> items;
  for (const WeightedData& set : field) {
    const std::string path = quote_toml(set.path.string());
    items.push_back(set.weight == 1.0 ? path
                                      : fmt::format("{{ path = {}, weight = {} }}", path,
                                                    Number{Number::Range::positive}.write(set.weight)));
  }
  return fmt::format("[{}]", fmt::join(items, ", "));
}

std::string EmptyList::read(const Json& value, const PathRule&, std::vector<std::string>& field) const {
  if (!value.is_array()) return "expected a list";
  for (const Json& item : value.array()) {
    if (!item.is_string() || std::ranges::find(later, item.string()) == later.end())
      return fmt::format("expected a list of \"{}\"", fmt::join(later, "\", \""));
  }
  if (!value.array().empty()) return "not supported yet: expected an empty list";
  field.clear();
  return {};
}

std::string quote_toml(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      quoted += fmt::format("\\{}", c);
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      quoted += c;
  }
  return quoted + '"';
}

std::string shown_value(const Json& value) {
  constexpr std::size_t kMaxBytes = 60;
  const bool not_finite = value.is_number() && !std::isfinite(value.number());
  std::string text = not_finite ? fmt::format("{}", value.number()) : value.dump();
  if (text.size() <= kMaxBytes) return text;
  std::size_t end = kMaxBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not inside a UTF-8 character
  return text.substr(0, end) + "...";
}

}  // namespace lathe
