#include "device/stopwatch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lathe {
namespace {

TEST(CpuStopwatch, RunsTheWorkAtEachReplayAndSaysHowLongItTook) {
  const auto stopwatch = make_cpu_stopwatch();
  int runs = 0;
  const auto recording = stopwatch->record([&] {
    ++runs;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  });
  EXPECT_EQ(runs, 0);
  const std::vector<double> times = stopwatch->replay(*recording, 3);
  EXPECT_EQ(runs, 3);
  ASSERT_EQ(times.size(), 3U);
  for (const double microseconds : times) EXPECT_GE(microseconds, 2e3);
}

}  // namespace
}  // namespace lathe
