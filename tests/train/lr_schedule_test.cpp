#include "train/lr_schedule.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

RunConfig::Scheduler scheduler(const std::string& type) {
  RunConfig::Scheduler settings;
  settings.type = type;
  settings.max_lr = 1.0;
  settings.min_lr = 0.1;
  settings.warmup_steps = 4;
  settings.decay_steps = 5;
  return settings;
}

TEST(LrSchedule, WarmsUpFromTheFirstStep) {
  for (const char* type : {"constant", "cosine", "linear", "wsd"})
    for (std::int64_t step = 1; step <= 4; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(scheduler(type), 20, step), 0.25 * static_cast<double>(step)) << type;
}

TEST(LrSchedule, ReachesMinAtTheLastStep) {
  for (const char* type : {"cosine", "linear", "wsd"})
    EXPECT_DOUBLE_EQ(learning_rate(scheduler(type), 20, 20), 0.1) << type;
  EXPECT_DOUBLE_EQ(learning_rate(scheduler("constant"), 20, 20), 1.0);
}

TEST(LrSchedule, HalfWayIsTheMean) {
  EXPECT_DOUBLE_EQ(learning_rate(scheduler("cosine"), 20, 12), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate(scheduler("linear"), 20, 12), 0.55);
}

TEST(LrSchedule, WsdIsStableUntilItsDecay) {
  for (std::int64_t step = 5; step <= 15; ++step) EXPECT_DOUBLE_EQ(learning_rate(scheduler("wsd"), 20, step), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(scheduler("wsd"), 20, 16), 1.0 - 0.9 / 5);
}

TEST(LrSchedule, WithoutWarmUpTheFirstStepIsBelowMax) {
  RunConfig::Scheduler settings = scheduler("cosine");
  settings.warmup_steps = 0;
  EXPECT_LT(learning_rate(settings, 20, 1), 1.0);
  EXPECT_GT(learning_rate(settings, 20, 1), 0.98);
}

}  // namespace
}  // namespace lathe
