#include "lathe/arguments.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace lathe {
namespace {

// The text as an error shows it: hostile input may be megabytes long.
std::string_view shown(std::string_view text) { return text.substr(0, 80); }

// Whether all of `text` is one number of type T that T can hold.
template <typename T>
bool read_whole(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::int64_t parse_integer(std::string_view flag, std::string_view text, std::int64_t min, std::int64_t max) {
  std::int64_t value = 0;
  require(read_whole(text, value) && value >= min && value <= max, "{} {}: expected a whole number from {} to {}", flag,
          text.empty() ? "''" : shown(text), min, max);
  return value;
}

double parse_number(std::string_view flag, std::string_view text, double min, double max) {
  double value = 0;
  require(read_whole(text, value) && std::isfinite(value) && value >= min && value <= max,
          "{} {}: expected a number from {} to {}", flag, text.empty() ? "''" : shown(text), min, max);
  return value;
}

std::vector<std::int32_t> parse_tokens(std::string_view flag, std::string_view text, std::size_t min_count) {
  std::vector<std::int32_t> tokens;
  for (std::string_view rest = text; !text.empty();) {
    const std::size_t comma = rest.find(',');
    std::string_view item = rest.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    std::int64_t value = -1;
    require(read_whole(item, value) && value >= 0 && value <= std::numeric_limits<std::int32_t>::max(),
            "{}: item {} is '{}': expected token ids from 0 to {}, separated by commas, as in 1,2,3", flag,
            tokens.size() + 1, shown(item), std::numeric_limits<std::int32_t>::max());
    tokens.push_back(static_cast<std::int32_t>(value));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  require(tokens.size() >= min_count, "{}: {} token ids given, at least {} needed", flag, tokens.size(), min_count);
  return tokens;
}

}  // namespace lathe
