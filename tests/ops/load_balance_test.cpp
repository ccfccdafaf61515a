#include "ops/load_balance.h"

#include "cases/load_balance_cases.h"
#include "core/error.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

using cases::LoadBalanceCase;
using Row = std::vector<double>;

constexpr double kCoefOverTokens = 0.37;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct Balance {
  explicit Balance(const LoadBalanceCase& balance_case, DType dtype = DType::f64, std::uint64_t seed = 3)
      : c(balance_case),
        scores(dtype, {c.tokens, c.num_experts}, 3),
        indices(DType::i32, {c.tokens, c.k}, 2),
        loss(DType::f64, {1}),
        dscores(dtype, {c.scopes, c.num_experts}, 1) {
    scores.fill_normal(seed);
    indices.fill_below(seed + 1, std::max<std::int64_t>(c.num_experts - 1, 1));  // the last expert gets no token
    loss.fill(0);
  }

  void run(const TensorView& accumulated = {}) const {
    ops::load_balance(*context, {.scores = scores,
                                 .indices = indices,
                                 .accumulated = accumulated,
                                 .coef_over_tokens = kCoefOverTokens,
                                 .loss = loss,
                                 .dscores = dscores});
  }

  // Choices of each expert among the rows of one scope.
  Row counts(std::int64_t scope) const {
    const Row all = indices.values();
    const std::int64_t size = c.tokens / c.scopes * c.k;
    Row result(at(c.num_experts), 0.0);
    for (std::int64_t i = scope * size; i < (scope + 1) * size; ++i) ++result[static_cast<std::size_t>(all[at(i)])];
    return result;
  }

  LoadBalanceCase c;
  CpuContext context;
  TestTensor scores, indices, loss, dscores;
};

// coef / total * T_scope * E * sum_i f_i P_i, with f given.
double scope_loss(const Balance& balance, const Row& scores, std::int64_t scope, const Row& f) {
  const LoadBalanceCase& c = balance.c;
  const std::int64_t rows = c.tokens / c.scopes;
  double sum = 0;
  for (std::int64_t i = 0; i < c.num_experts; ++i) {
    double mean = 0;
    for (std::int64_t t = scope * rows; t < (scope + 1) * rows; ++t)
      mean += scores[at(t * c.num_experts + i)] / static_cast<double>(rows);
    sum += f[at(i)] * mean;
  }
  return kCoefOverTokens * static_cast<double>(rows * c.num_experts) * sum;
}

Row fractions(Row counts, double tokens, std::int64_t k) {
  for (double& count : counts) count /= tokens * static_cast<double>(k);
  return counts;
}

class LoadBalanceOp : public ::testing::TestWithParam<LoadBalanceCase> {};

TEST_P(LoadBalanceOp, LossAndGradientFollowTheDefinition) {
  const LoadBalanceCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64}) {
    Balance balance(c, dtype);
    balance.loss.fill(2.5);
    balance.run();
    double expected = 2.5;
    Row gradient;
    for (std::int64_t scope = 0; scope < c.scopes; ++scope) {
      const Row f = fractions(balance.counts(scope), static_cast<double>(c.tokens / c.scopes), c.k);
      expected += scope_loss(balance, balance.scores.values(), scope, f);
      for (const double share : f) gradient.push_back(kCoefOverTokens * static_cast<double>(c.num_experts) * share);
    }
    EXPECT_NEAR(balance.loss.values()[0], expected, 1e-12 * static_cast<double>(c.tokens * c.num_experts));
    EXPECT_TRUE(is_close(balance.dscores, gradient, dtype == DType::f32 ? 1e-7 : 1e-14, 0));
  }
}

// The gradient written is the loss's: every row of a scope has the same one.
TEST_P(LoadBalanceOp, GradientIsTheLosssDerivative) {
  const LoadBalanceCase& c = GetParam();
  const Balance balance(c);
  balance.run();
  const double before = balance.loss.values()[0];
  const Row gradient = balance.dscores.values();
  for (std::int64_t i = 0; i < c.num_experts; ++i) {
    const std::int64_t t = (i * 7) % c.tokens;
    Balance moved(c);
    moved.scores.view().as<double>()[t * moved.scores.view().strides[0] + i] += 1.0;
    moved.run();
    EXPECT_NEAR(moved.loss.values()[0] - before, gradient[at(t / (c.tokens / c.scopes) * c.num_experts + i)],
                1e-11 * (1 + std::abs(before)));
  }
}

TEST_P(LoadBalanceOp, IsBitEqualOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    const Balance balance(GetParam(), DType::f32);
    balance.run();
    return std::vector<TestTensor>{balance.loss, balance.dscores};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, LoadBalanceOp, ::testing::ValuesIn(cases::load_balance_cases()),
                         [](const auto& test) { return test.param.name; });

// Each micro-batch's f counts those before it and itself; P is its own.
TEST(LoadBalance, AccumulatesCountsOverMicroBatches) {
  const LoadBalanceCase c{"", 19, 5, 2};
  TestTensor accumulated(DType::i64, {c.num_experts + 1});
  accumulated.fill(0);
  Row counts(at(c.num_experts), 0.0);
  for (std::uint64_t micro_batch = 0; micro_batch < 3; ++micro_batch) {
    const Balance balance(c, DType::f64, 10 + 2 * micro_batch);
    balance.run(accumulated);
    const double tokens = static_cast<double>(c.tokens) * static_cast<double>(micro_batch + 1);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += balance.counts(0)[i];
    const Row f = fractions(counts, tokens, c.k);
    EXPECT_NEAR(balance.loss.values()[0], scope_loss(balance, balance.scores.values(), 0, f), 1e-12);
    Row gradient;
    for (const double share : f) gradient.push_back(kCoefOverTokens * static_cast<double>(c.num_experts) * share);
    EXPECT_TRUE(is_close(balance.dscores, gradient, 1e-14, 0));
    Row expected = counts;
    expected.push_back(tokens);
    EXPECT_EQ(accumulated.values(), expected);
  }
}

TEST(LoadBalance, IsTheCoefficientWhereBalanced) {
  Balance balance({"", 8, 4, 2, 2});
  balance.scores.fill(0.25);
  balance.indices.set({0, 1, 2, 3, 0, 1, 2, 3, 0, 2, 1, 3, 0, 2, 1, 3});
  balance.run();
  EXPECT_NEAR(balance.loss.values()[0], kCoefOverTokens * 8, 1e-14);  // coefficient over tokens, times the 8 tokens
}

TEST(LoadBalance, RefusesScopesThatDoNotFit) {
  EXPECT_THROW(Balance({"", 5, 4, 2, 2}).run(), Error);
  EXPECT_THROW(Balance({"", 5, 4, 2, 0}).run(), Error);
  const TestTensor accumulated(DType::i64, {5});
  EXPECT_THROW(Balance({"", 4, 4, 2, 2}).run(accumulated), Error);
  const TestTensor too_short(DType::i64, {4});
  EXPECT_THROW(Balance({"", 4, 4, 2, 1}).run(too_short), Error);
}

}  // namespace
}  // namespace lathe::testing
