#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "data/data_testing.h"

namespace lathe {
namespace {

std::vector<std::int32_t> count_up(std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<std::int32_t> take(const Sampler& sampler, std::int64_t index) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(sampler.sequence_length()) + 1, -7);
  sampler.sample(index, tokens);
  return tokens;
}

TEST(Shuffle, IsAPermutationOfAnyCount) {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 31, 32, 33, 1000, 4097}) {
    std::vector<bool> seen(static_cast<std::size_t>(count), false);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t place = shuffled_position(i, count, 1234, 5);
      ASSERT_TRUE(place >= 0 && place < count && !seen[static_cast<std::size_t>(place)]) << count << ": " << i;
      seen[static_cast<std::size_t>(place)] = true;
    }
  }
}

TEST(Shuffle, EveryPositionIsEquallyLikely) {
  constexpr std::int64_t kCount = 7;
  constexpr int kTrials = 7000;
  int hits[kCount][kCount] = {};
  int neighbours = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::int64_t previous = -5;
    for (std::int64_t i = 0; i < kCount; ++i) {
      const auto place = shuffled_position(i, kCount, 99, static_cast<std::uint64_t>(trial));
      ++hits[i][place];
      if (place == previous + 1) ++neighbours;
      previous = place;
    }
  }
  for (const auto& row : hits)
    for (const int count : row) EXPECT_NEAR(count, kTrials / kCount, 5 * std::sqrt(kTrials / kCount));
  // Of 6 neighbouring pairs, each stays in order with probability 1/7.
  EXPECT_NEAR(neighbours, kTrials * 6 / 7, 5 * std::sqrt(kTrials * 6 / 7));
}

TEST(Shuffle, DependsOnSeedAndStream) {
  const auto order = [](std::uint64_t seed, std::uint64_t stream) {
    std::vector<std::int64_t> places;
    for (std::int64_t i = 0; i < 50; ++i) places.push_back(shuffled_position(i, 50, seed, stream));
    return places;
  };
  EXPECT_EQ(order(1, 2), order(1, 2));
  EXPECT_NE(order(1, 2), order(2, 2));
  EXPECT_NE(order(1, 2), order(1, 3));
}

TEST(Sampler, SamplesArePositionsShuffledByEpoch) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(0, 3 * 10 + 1 + 2)});  // 10 samples of 3, and 2 tokens too few for another
  const Sampler sampler({{folder / "a", 1.0}}, 3, 1);
  ASSERT_EQ(sampler.samples_per_epoch(), 10);
  std::vector<std::int32_t> first_epoch;
  std::vector<std::int32_t> second_epoch;
  for (std::int64_t i = 0; i < 20; ++i) {
    const auto tokens = take(sampler, i);
    EXPECT_EQ(tokens[0] % 3, 0);
    EXPECT_EQ(tokens, count_up(tokens[0], 4));
    (i < 10 ? first_epoch : second_epoch).push_back(tokens[0]);
  }
  EXPECT_NE(first_epoch, second_epoch);
  EXPECT_EQ(std::set<std::int32_t>(first_epoch.begin(), first_epoch.end()).size(), 10U);
  EXPECT_EQ(std::set<std::int32_t>(second_epoch.begin(), second_epoch.end()).size(), 10U);
  const Sampler again({{folder / "a", 1.0}}, 3, 1);
  for (const std::int64_t i : {19, 3, 7}) EXPECT_EQ(take(again, i), take(sampler, i));
}

TEST(Sampler, ExactlyOneSampleFits) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(5, 5)});
  EXPECT_EQ(take(Sampler({{folder / "a", 1.0}}, 4, 1), 12), count_up(5, 5));
  expect_refused([&] { Sampler({{folder / "a", 1.0}}, 5, 1); }, {"a.bin", "5 tokens", "sequence_length 5", "6"});
}

TEST(Sampler, MixFollowsTheLargestDeficit) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(0, 41)});
  write_documents(folder / "b", {count_up(1000, 21)});
  write_documents(folder / "c", {count_up(2000, 401)});
  const double weights[] = {5.0, 1.5, 0.3};
  const Sampler sampler({{folder / "a", 5.0}, {folder / "b", 1.5}, {folder / "c", 0.3}}, 4, 7);
  std::int64_t counts[3] = {};
  for (std::int64_t t = 0; t < 2000; ++t) {
    const auto tokens = take(sampler, t);
    const auto corpus = static_cast<std::size_t>(tokens[0] / 1000);
    double best = -1e9;
    std::size_t expected = 0;
    for (std::size_t c = 0; c < 3; ++c) {
      const double deficit = weights[c] / 6.8 * static_cast<double>(t + 1) - static_cast<double>(counts[c]);
      if (deficit > best + 1e-6) {
        best = deficit;
        expected = c;
      }
    }
    // Weights are rounded to 1/100,000, so near ties may go either way.
    const double own = weights[corpus] / 6.8 * static_cast<double>(t + 1) - static_cast<double>(counts[corpus]);
    EXPECT_NEAR(own, best, 0.05) << t << ": " << corpus << " instead of " << expected;
    ++counts[corpus];
    for (std::size_t c = 0; c < 3; ++c) ASSERT_EQ(sampler.samples_from(c, t + 1), counts[c]);
  }
}

TEST(Sampler, MixRepeatsWithoutLosingItsPlace) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(0, 31)});
  write_documents(folder / "b", {count_up(1000, 21)});
  const Sampler sampler({{folder / "a", 2.0}, {folder / "b", 1.0}}, 2, 7);
  // Whole epochs of each corpus, across the end of the mix's period.
  for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{99'990}, std::int64_t{12'345'678'901'234}}) {
    std::vector<int> seen_a(15, 0);
    std::int64_t taken = 0;
    const std::int64_t before = sampler.samples_from(0, begin);
    const std::int64_t skip = (15 - before % 15) % 15;
    for (std::int64_t t = begin; taken < skip + 15; ++t) {
      const auto tokens = take(sampler, t);
      if (tokens[0] >= 1000) continue;
      if (taken++ >= skip) ++seen_a[static_cast<std::size_t>(tokens[0] / 2)];
    }
    EXPECT_EQ(seen_a, std::vector<int>(15, 1)) << begin;
  }
}

TEST(Sampler, MarksDocumentStarts) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {{1, 2, 3}, {4}, {5, 6, 7, 8}, {}, {9}});
  const ValidationSet set({folder / "a"}, 4);
  ASSERT_EQ(set.num_samples(), 2);
  std::vector<std::int32_t> tokens(5, -7);
  std::vector<std::int32_t> starts{77};
  set.sample(0, tokens, &starts);
  EXPECT_EQ(tokens, count_up(1, 5));
  EXPECT_EQ(starts, std::vector<std::int32_t>{3});  // 5, at position 4, is only a target
  set.sample(1, tokens, &starts);
  EXPECT_EQ(tokens, count_up(5, 5));
  EXPECT_TRUE(starts.empty());  // position 0 is left out
}

TEST(ValidationSet, GoesThroughTheFilesInOrder) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(0, 8)});
  write_documents(folder / "tiny", {{1}});
  write_documents(folder / "b", {count_up(100, 7)});
  const ValidationSet set({folder / "a", folder / "tiny", folder / "b"}, 3);
  ASSERT_EQ(set.num_samples(), 4);
  std::vector<std::int32_t> firsts;
  for (std::int64_t i = 0; i < 4; ++i) {
    std::vector<std::int32_t> tokens(4, -7);
    set.sample(i, tokens);
    firsts.push_back(tokens[0]);
  }
  EXPECT_EQ(firsts, (std::vector<std::int32_t>{0, 3, 100, 103}));
  expect_refused([&] { ValidationSet({folder / "tiny"}, 3); }, {"tiny.bin", "no validation sample", "4"});
}

TEST(Sampler, Refusals) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {count_up(0, 41)});
  write_documents(folder / "b", {count_up(0, 41)});
  for (const double weight : {0.0, -1.0, std::nan(""), HUGE_VAL})
    expect_refused([&] { Sampler({{folder / "a", 1.0}, {folder / "b", weight}}, 4, 1); }, {"b", "weight"});
  expect_refused([&] { Sampler({{folder / "a", 1.0}}, 0, 1); }, {"sequence_length is 0"});
  expect_refused([&] { Sampler({}, 4, 1); }, {"no training corpus"});
  expect_refused([&] { Sampler({{folder / "none", 1.0}}, 4, 1); }, {"none.bin"});
  const Sampler sampler({{folder / "a", 1.0}}, 4, 1);
  sampler.require_global_batch(10);
  expect_refused([&] { sampler.require_global_batch(11); }, {"10 samples", "global_batch_size 11"});
  sampler.require_ids_below(41);
  expect_refused([&] { sampler.require_ids_below(40); }, {"a.bin", "token 40"});
  // The smallest weight still gets its turn.
  const Sampler uneven({{folder / "a", 1e-30}, {folder / "b", 1.0}}, 4, 1);
  EXPECT_EQ(uneven.samples_from(0, 100'000), 1);
  EXPECT_EQ(uneven.samples_from(1, 100'000), 99'999);
}

}  // namespace
}  // namespace lathe
