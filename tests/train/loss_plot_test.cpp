#include "train/loss_plot.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

std::string metrics_of(int steps) {
  std::string text;
  for (int step = 1; step <= steps; ++step) {
    text += fmt::format("{{\"step\":{},\"cross_entropy_loss\":{}}}\n", step, 1 + 4.0 / step);
    if (step % 50 == 0) text += fmt::format("{{\"step\":{},\"validation_loss\":{}}}\n", step, 1.2 + 4.0 / step);
  }
  return text;
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
  return value;
}

TEST(LossPlot, DrawsAPng) {
  if (::system("gnuplot --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no gnuplot here";
  const TemporaryFolder folder;
  for (const int steps : {1, 200, 5000}) {
    write_bytes(folder / "metrics.jsonl", metrics_of(steps) + "{\"step\":9000,\"cross_entropy_loss\":null}\n");
    const auto png = folder / fmt::format("it's {} steps.png", steps);
    const std::array<ReferenceLoss, 2> references{{{"2-gram's", 2.3}, {"3-gram_of_$x", 1.83}}};
    ASSERT_TRUE(write_loss_plot(folder / "metrics.jsonl", png, references));
    const std::string bytes = read_bytes(png);
    EXPECT_TRUE(bytes.starts_with("\x89PNG\r\n"));
    EXPECT_EQ(big_endian(bytes, 16), 1000U);
    EXPECT_EQ(big_endian(bytes, 20), 600U);
  }
}

// The warning of a plot that fails, without its time.
std::string warning_of(const std::filesystem::path& metrics, const std::filesystem::path& png) {
  testing::internal::CaptureStderr();
  EXPECT_FALSE(write_loss_plot(metrics, png));
  const std::string line = testing::internal::GetCapturedStderr();
  const std::size_t message = line.find("WARNING | ");
  return message == std::string::npos ? line : line.substr(message + 10);
}

TEST(LossPlot, WarnsOnceAndGoesOn) {
  const TemporaryFolder folder;
  const auto png = folder / "loss.png";
  EXPECT_EQ(warning_of(folder / "none", png),
            "no loss plot: " + (folder / "none").string() + ": cannot be read: No such file or directory\n");
  write_bytes(folder / "empty", "");
  EXPECT_EQ(warning_of(folder / "empty", png),
            "no loss plot: " + (folder / "empty").string() + ": no losses to draw\n");
  write_bytes(folder / "metrics.jsonl", metrics_of(3));
  const std::string path = ::getenv("PATH");
  ::setenv("PATH", "/nonexistent", 1);
  EXPECT_EQ(warning_of(folder / "metrics.jsonl", png), "no loss plot: gnuplot is not installed\n");
  ::setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace lathe
