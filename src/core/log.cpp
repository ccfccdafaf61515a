#include "core/log.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace lathe {
namespace {

std::string time_stamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return text.data();
}

}  // namespace

void write_log_line(std::string_view message) {
  fmt::print(stdout, "{} | INFO | {}\n", time_stamp(), message);
  std::fflush(stdout);
}

void write_warning_line(std::string_view message) { fmt::print(stderr, "{} | WARNING | {}\n", time_stamp(), message); }

std::string with_commas(long long value) {
  std::string digits = fmt::format("{}", value);
  const std::size_t first = value < 0 ? 1 : 0;
  for (std::size_t place = digits.size(); place > first + 3;) {
    place -= 3;
    digits.insert(place, 1, ',');
  }
  return digits;
}

std::string format_bytes(std::size_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value >= 1e9 ? fmt::format("{:.2f} GB", value * 1e-9) : fmt::format("{:.1f} MB", value * 1e-6);
}

}  // namespace lathe
