#include "train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/file.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

StepMetrics seed_line() {
  StepMetrics metrics;
  metrics.step = 16;
  metrics.max_steps = 25;
  metrics.step_time = 24.666;
  metrics.cross_entropy_loss = 2.4565;
  metrics.load_balance_loss = 0.003234;
  metrics.learning_rate = 1e-6;
  metrics.gradient_norm = 2.1498;
  metrics.tokens_per_second = 85021.2;
  metrics.peak_memory_bytes = 57'220'000'000;
  metrics.gpu = true;
  return metrics;
}

TEST(StepLine, IsTheSeedsToTheLetter) {
  EXPECT_EQ(step_line(seed_line()),
            "step 00000016/00000025 | step-time 24.666 sec | cross-entropy-loss 2.4565 | load-balance-loss 0.003234 | "
            "learning-rate 1.000000e-06 | gradient-norm 2.1498 | tokens-per-second 85,021 | peak-gpu-memory 57.22 GB");
}

TEST(StepLine, LeavesOutWhatDoesNotApply) {
  StepMetrics metrics = seed_line();
  metrics.load_balance_loss.reset();
  metrics.gpu = false;
  metrics.skipped = 2;
  EXPECT_EQ(step_line(metrics),
            "step 00000016/00000025 | step-time 24.666 sec | cross-entropy-loss 2.4565 | learning-rate 1.000000e-06 | "
            "gradient-norm 2.1498 | tokens-per-second 85,021 | peak-memory 57.22 GB | skipped 2");
}

TEST(ValidationLine, IsAsDocumented) {
  EXPECT_EQ(validation_line({.step = 100, .loss = 1.2345, .tokens = 65536}),
            "validation | step 00000100 | cross-entropy-loss 1.2345 | perplexity 3.4367 | tokens 65,536");
}

class MetricsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("lathe-metrics-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(MetricsFile, DropsRowsAfterTheCheckpointAndACutRow) {
  std::ofstream(folder_ / "metrics.jsonl")
      << "{\"step\":1,\"a\":0.1}\n{\"step\":2}\n{\"step\":2,\"validation_loss\":1}\n"
         "{\"step\":3}\n{\"step\":4,\"cross_ent";
  {
    MetricsWriter writer(folder_, 2, false);
    StepMetrics metrics = seed_line();
    metrics.step = 3;
    metrics.gradient_norm = std::numeric_limits<double>::quiet_NaN();
    ::testing::internal::CaptureStdout();
    writer.write(metrics);
    ::testing::internal::GetCapturedStdout();
  }
  const std::string text = read_text_file(folder_ / "metrics.jsonl");
  EXPECT_TRUE(
      text.starts_with("{\"step\":1,\"a\":0.1}\n{\"step\":2}\n{\"step\":2,\"validation_loss\":1}\n{\"step\":3,"))
      << text;
  EXPECT_NE(text.find("\"gradient_norm\":null"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
}

}  // namespace
}  // namespace lathe
