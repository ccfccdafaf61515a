// The one error idiom: exceptions that carry the values that clash. Only `apps` turns them into exit codes.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace lathe {

// Something failed while running (exit code 1).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Input that is not accepted; nothing was started or written (exit code 2).
class InputError : public Error {
 public:
  using Error::Error;
};

// The CUDA driver or runtime reported an error.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// A device, the host included, has no memory for what was asked.
class OutOfMemoryError : public Error {
 public:
  using Error::Error;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error unless `condition` holds. The message names both values.
template <typename... Args>
void check(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    fail(format, std::forward<Args>(args)...);
}

// Throws InputError unless `condition` holds.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    refuse(format, std::forward<Args>(args)...);
}

}  // namespace lathe
