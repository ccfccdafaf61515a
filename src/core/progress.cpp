#include "core/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace lathe {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::milliseconds kPlainLine{10'000};
constexpr std::size_t kBarWidth = 30;

std::string format_seconds(double seconds) {
  const auto whole = static_cast<long long>(seconds);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

Progress::Progress(std::string label, std::int64_t total, Where where)
    : label_(std::move(label)),
      total_(total),
      is_terminal_(::isatty(STDERR_FILENO) == 1),
      is_silent_(!is_terminal_ && where == Where::terminal_only),
      start_(Clock::now()),
      printed_(start_) {}

Progress::~Progress() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

void Progress::update(std::int64_t done, const std::string& note) {
  if (is_silent_) return;
  const auto now = Clock::now();
  if (now - printed_ < (is_terminal_ ? kRedraw : kPlainLine)) return;
  printed_ = now;
  print(done, note);
}

void Progress::finish(const std::string& note) {
  if (!is_terminal_ && !is_silent_) print(total_, note);
}

void Progress::print(std::int64_t done, const std::string& note) {
  const double share = total_ > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0) : 1.0;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const std::string left = share > 0 && share < 1 ? "  " + format_seconds(elapsed * (1 - share) / share) + " left" : "";
  const std::string text = fmt::format("{:.1f}%{}{}{}", share * 100, note.empty() ? "" : "  ", note, left);
  if (is_terminal_) {
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(kBarWidth));
    fmt::print(stderr, "\r\033[K{} [{}{}] {}", label_, std::string(filled, '#'), std::string(kBarWidth - filled, '.'),
               text);
    drawn_ = true;
  } else {
    fmt::print(stderr, "{} {}\n", label_, text);
  }
  std::fflush(stderr);
}

}  // namespace lathe
