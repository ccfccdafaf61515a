#include <chrono>
#include <utility>

#include "device/timeline.h"

namespace lathe {
namespace {

class CpuTimeline final : public Timeline {
 public:
  void begin() override { begin_ = Clock::now(); }
  void end() override { spans_.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin_).count()); }
  std::vector<double> take() override { return std::exchange(spans_, {}); }

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point begin_;
  std::vector<double> spans_;
};

}  // namespace

std::unique_ptr<Timeline> make_cpu_timeline() { return std::make_unique<CpuTimeline>(); }

}  // namespace lathe
