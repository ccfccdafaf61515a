// Where the time of a device goes, by kind of work: what `lathe bench step` measures with.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "device/timeline.h"

namespace lathe {

// The least that an operation takes.
struct Work {
  double flops = 0;  // of matrix products and attention; what other ops compute hides behind the bytes that they move
  double bytes = 0;  // each input read once, each output written once
};

class WorkRecorder {
 public:
  // The timeline is that of the stream that the device is given its work in.
  explicit WorkRecorder(std::unique_ptr<Timeline> timeline) : timeline_(std::move(timeline)) {}

  // Runs `launch`, which gives the device work of the class `name`; the name outlives the recorder. No work is recorded
  // inside of another's.
  template <typename Launch>
  void record(std::string_view name, const Work& work, Launch&& launch) {
    begin(name, work);
    try {
      launch();
    } catch (...) {
      end_after_failure();
      throw;
    }
    end();
  }

  struct Class {
    std::string_view name;
    std::int64_t calls = 0;
    Work work;
    double microseconds = 0;
  };
  // What was recorded since the last call, in the order of first use; waits for the device.
  std::vector<Class> take();

 private:
  void begin(std::string_view name, const Work& work);
  void end();
  void end_after_failure() noexcept;

  std::unique_ptr<Timeline> timeline_;
  std::vector<Class> classes_;
  std::vector<std::size_t> spans_;  // the class of each
  bool inside_ = false;
};

}  // namespace lathe
