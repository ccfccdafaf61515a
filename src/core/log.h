// Lines for people: results on stdout, warnings and progress on stderr.
#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace lathe {

// "2026-03-31 22:17:25 | INFO | message" on stdout, flushed.
void write_log_line(std::string_view message);
// "2026-03-31 22:17:25 | WARNING | message" on stderr.
void write_warning_line(std::string_view message);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  write_log_line(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  write_warning_line(fmt::format(format, std::forward<Args>(args)...));
}

// "1,234,567"
std::string with_commas(long long value);
// "5.2 MB", "31.41 GB"; GB = 10^9 bytes
std::string format_bytes(std::size_t bytes);

}  // namespace lathe
