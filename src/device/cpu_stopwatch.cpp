#include <chrono>
#include <utility>

#include "device/stopwatch.h"

namespace lathe {
namespace {

class CpuRecording final : public Stopwatch::Recording {
 public:
  explicit CpuRecording(std::function<void()> recorded) : work(std::move(recorded)) {}

  std::function<void()> work;
};

class CpuStopwatch final : public Stopwatch {
 public:
  Stream stream() const override { return {}; }

  std::unique_ptr<Recording> record(std::function<void()> work) override {
    return std::make_unique<CpuRecording>(std::move(work));
  }

  std::vector<double> replay(const Recording& recording, int count) override {
    using Clock = std::chrono::steady_clock;
    const auto& work = static_cast<const CpuRecording&>(recording).work;
    std::vector<double> times;
    for (int i = 0; i < count; ++i) {
      const Clock::time_point start = Clock::now();
      work();
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    return times;
  }
};

}  // namespace

std::unique_ptr<Stopwatch> make_cpu_stopwatch() { return std::make_unique<CpuStopwatch>(); }

}  // namespace lathe
