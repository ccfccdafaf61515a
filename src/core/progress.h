// How far a long job is, on stderr: a bar on a terminal, a plain line now and then otherwise.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace lathe {

class Progress {
 public:
  // `total` in any unit. On a terminal the bar is redrawn in place; otherwise a line follows every 10 s and at the end.
  enum class Where { anywhere, terminal_only };
  Progress(std::string label, std::int64_t total, Where where = Where::anywhere);
  // Clears the bar.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` follows the share done. Cheap to call often: it prints at most 10 times a second.
  void update(std::int64_t done, const std::string& note = {});
  // The job is done: the last plain line.
  void finish(const std::string& note = {});

 private:
  using Clock = std::chrono::steady_clock;

  void print(std::int64_t done, const std::string& note);

  std::string label_;
  std::int64_t total_;
  bool is_terminal_;
  bool is_silent_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point printed_;
};

}  // namespace lathe
