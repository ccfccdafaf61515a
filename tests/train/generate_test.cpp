#include "train/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lathe {
namespace {

const std::vector<float> kLogits = {std::log(0.2F), std::log(0.5F), std::log(0.3F)};

TEST(SampleToken, TemperatureZeroIsTheLikeliest) { EXPECT_EQ(sample_token(kLogits, 0.0, 1.0, 0.999), 1); }

// By falling probability: token 1 takes [0, 0.5), token 2 [0.5, 0.8), token 0 the rest.
TEST(SampleToken, FollowsTheDistribution) {
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.0), 1);
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.49), 1);
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.51), 2);
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.79), 2);
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.81), 0);
  EXPECT_EQ(sample_token(kLogits, 1.0, 1.0, 0.999999), 0);
}

TEST(SampleToken, TopPCutsTheTail) {
  EXPECT_EQ(sample_token(kLogits, 1.0, 0.7, 0.999999), 2);
  EXPECT_EQ(sample_token(kLogits, 1.0, 0.4, 0.999999), 1);
  EXPECT_EQ(sample_token(kLogits, 1.0, 0.0, 0.5), 1);
}

TEST(SampleToken, HighTemperatureIsNearlyUniform) {
  EXPECT_EQ(sample_token(kLogits, 1000.0, 1.0, 0.34), 2);
  EXPECT_EQ(sample_token(kLogits, 1000.0, 1.0, 0.67), 0);
}

}  // namespace
}  // namespace lathe
