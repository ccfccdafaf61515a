#include "device/work_recorder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/test_support.h"

namespace lathe {
namespace {

void sleep_for_milliseconds(int count) { std::this_thread::sleep_for(std::chrono::milliseconds(count)); }

TEST(CpuTimeline, TimesEachSpanAndNotWhatLiesBetween) {
  const auto timeline = make_cpu_timeline();
  EXPECT_TRUE(timeline->take().empty());
  const auto before = std::chrono::steady_clock::now();
  for (const int milliseconds : {2, 1}) {
    timeline->begin();
    sleep_for_milliseconds(milliseconds);
    timeline->end();
    sleep_for_milliseconds(20);
  }
  const std::chrono::duration<double, std::micro> all = std::chrono::steady_clock::now() - before;
  const std::vector<double> spans = timeline->take();
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_GE(spans[0], 2e3);
  EXPECT_GE(spans[1], 1e3);
  EXPECT_LE(spans[0] + spans[1], all.count() - 40e3);
  EXPECT_TRUE(timeline->take().empty());
}

TEST(WorkRecorder, AddsUpTheCallsOfAClass) {
  WorkRecorder recorder(make_cpu_timeline());
  recorder.record("product", {.flops = 10, .bytes = 1}, [] { sleep_for_milliseconds(1); });
  recorder.record("copy", {.bytes = 5}, [] {});
  recorder.record("product", {.flops = 20, .bytes = 2}, [] { sleep_for_milliseconds(2); });
  const std::vector<WorkRecorder::Class> classes = recorder.take();
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].name, "product");
  EXPECT_EQ(classes[0].calls, 2);
  EXPECT_EQ(classes[0].work.flops, 30);
  EXPECT_EQ(classes[0].work.bytes, 3);
  EXPECT_GE(classes[0].microseconds, 3e3);
  EXPECT_EQ(classes[1].name, "copy");
  EXPECT_EQ(classes[1].calls, 1);
  EXPECT_TRUE(recorder.take().empty());
}

TEST(WorkRecorder, RefusesWorkInsideOfOtherWork) {
  WorkRecorder recorder(make_cpu_timeline());
  const auto nested = [&] { recorder.record("outer", {}, [&] { recorder.record("inner", {}, [] {}); }); };
  EXPECT_EQ(test::message_of<Error>(nested), "inner is to be timed inside of outer: it would count twice");
}

}  // namespace
}  // namespace lathe
