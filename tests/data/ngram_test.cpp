#include "data/ngram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/philox.h"
#include "data/data_testing.h"

namespace lathe {
namespace {

using Tokens = std::vector<std::int32_t>;

// The definition, read off the formula.
double probability(const Tokens& text, Tokens context, std::int32_t token, double vocab_size) {
  double lower = 1.0 / vocab_size;
  const std::size_t length = context.size();
  if (length > 0) lower = probability(text, Tokens(context.begin() + 1, context.end()), token, vocab_size);
  double count = 0;
  double total = 0;
  std::set<std::int32_t> followers;
  for (std::size_t i = length; i < text.size(); ++i) {
    if (!std::equal(context.begin(), context.end(), text.begin() + static_cast<std::ptrdiff_t>(i - length))) continue;
    total += 1;
    followers.insert(text[i]);
    if (text[i] == token) count += 1;
  }
  const auto distinct = static_cast<double>(followers.size());
  return total == 0 ? lower : (count + distinct * lower) / (total + distinct);
}

std::array<double, 4> naive(const Tokens& counted, const Tokens& measured, double vocab_size) {
  std::array<double, 4> sums{};
  for (std::size_t k = 1; k <= 4; ++k)
    for (std::size_t i = 0; i < measured.size(); ++i) {
      const std::size_t length = std::min(i, k - 1);
      const auto here = measured.begin() + static_cast<std::ptrdiff_t>(i);
      sums[k - 1] -= std::log(probability(counted, Tokens(here - static_cast<std::ptrdiff_t>(length), here),
                                          measured[i], vocab_size)) /
                     static_cast<double>(measured.size());
    }
  return sums;
}

Tokens random_tokens(std::uint64_t seed, std::size_t count, std::uint64_t kinds, std::int32_t scale) {
  Tokens tokens;
  const Philox random(seed);
  for (std::size_t i = 0; i < count; ++i) {
    const auto a = random.below(2 * i, kinds);
    tokens.push_back(static_cast<std::int32_t>(std::min(a, random.below(2 * i + 1, kinds))) * scale);
  }
  return tokens;
}

void compare(const Tokens& counted, const Tokens& measured, std::int64_t vocab_size) {
  const TemporaryFolder folder;
  const std::size_t cut = counted.size() / 3;
  write_documents(folder / "a",
                  {Tokens(counted.begin(), counted.begin() + static_cast<std::ptrdiff_t>(cut)),
                   Tokens(counted.begin() + static_cast<std::ptrdiff_t>(cut), counted.end())},
                  TokenType::i32);
  write_documents(folder / "b", {measured}, TokenType::i32);
  const auto result = ngram_entropy(TokenFile(folder / "a"), TokenFile(folder / "b"));
  EXPECT_EQ(result.vocab_size, vocab_size);
  const auto expected = naive(counted, measured, static_cast<double>(vocab_size));
  for (std::size_t k = 0; k < 4; ++k) EXPECT_NEAR(result.nats_per_token[k], expected[k], 1e-12) << k + 1;
}

TEST(Ngram, AgreesWithTheDefinition) {
  compare(random_tokens(1, 400, 6, 1), random_tokens(2, 300, 7, 1), 258);
  compare(random_tokens(3, 300, 40, 1), random_tokens(4, 100, 50, 1), 258);
  compare(random_tokens(5, 200, 4, 1'000'000), random_tokens(6, 50, 5, 1'000'000), 3'000'001);
  compare({3}, {3}, 258);
  compare({3, 3}, {4, 3, 3, 3, 3, 3}, 258);
}

// More distinct n-grams than the table starts with.
TEST(Ngram, OnItself) {
  const Tokens tokens = random_tokens(7, 1500, 12, 1);
  compare(tokens, tokens, 258);
}

TEST(Ngram, RefusesEmptyFiles) {
  const TemporaryFolder folder;
  write_documents(folder / "a", {{1, 2}});
  write_documents(folder / "none", {});
  const TokenFile a(folder / "a");
  const TokenFile none(folder / "none");
  expect_refused([&] { ngram_entropy(none, a); }, {"none.bin", "no tokens"});
  expect_refused([&] { ngram_entropy(a, none); }, {"none.bin", "no tokens"});
}

}  // namespace
}  // namespace lathe
