#include "core/philox.h"

#include <gtest/gtest.h>

#include <vector>

namespace lathe {
namespace {

using Block = std::array<std::uint32_t, 4>;

// The known answers published with the algorithm for philox4x32-10: counter words, key words, result.
TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(Philox(0, 0).block(0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~std::uint64_t{0}, ~std::uint64_t{0}).block(~std::uint64_t{0}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox(0x299f31d0a4093822, 0x0370734413198a2e).block(0x85a308d3243f6a88),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformFillsItsRange) {
  const Philox random(3);
  constexpr std::uint64_t kCount = 100'000;
  std::vector<int> tenths(10);
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double value = random.uniform(i);
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++tenths[static_cast<std::size_t>(value * 10)];
  }
  for (const int count : tenths) EXPECT_NEAR(count, 10'000, 500);  // 5 standard deviations
}

TEST(Philox, BelowIsEvenlySpread) {
  const Philox random(4);
  std::vector<int> counts(7);
  for (std::uint64_t i = 0; i < 70'000; ++i) ++counts.at(random.below(i, 7));
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(random.below(i, 1), 0U);
  std::uint64_t largest = 0;
  for (std::uint64_t i = 0; i < 100; ++i) largest = std::max(largest, random.below(i, ~std::uint64_t{0}));
  EXPECT_GT(largest, ~std::uint64_t{0} / 10 * 9);
}

TEST(Philox, NormalHasTheMomentsOfANormal) {
  const Philox random(5, 6);
  constexpr int kCount = 200'000;
  double sum = 0;
  double squares = 0;
  double fourths = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double value = random.normal(i);
    ASSERT_TRUE(std::isfinite(value));
    sum += value;
    squares += value * value;
    fourths += value * value * value * value;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.012);  // each bound is 5 standard deviations
  EXPECT_NEAR(squares / kCount, 1.0, 0.016);
  EXPECT_NEAR(fourths / kCount, 3.0, 0.11);
}

TEST(Philox, StreamsAndSeedsAreIndependent) {
  EXPECT_NE(Philox(1, 0).bits(0), Philox(1, 1).bits(0));
  EXPECT_NE(Philox(1, 0).bits(0), Philox(2, 0).bits(0));
  EXPECT_EQ(Philox(1, 2).bits(3), Philox(1, 2).bits(3));
}

}  // namespace
}  // namespace lathe
