#include "ops/router.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "cases/router_cases.h"
#include "core/error.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

using cases::RouterCase;
using Row = std::vector<double>;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

Row softmax(const Row& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  Row p;
  for (const double logit : logits) p.push_back(std::exp(logit - largest));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

// Positions by falling value, equal ones by rising position.
std::vector<std::int64_t> ranking(const Row& values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return values[at(a)] > values[at(b)]; });
  return order;
}

std::vector<std::int64_t> choose(const RouterCase& c, Row scores) {
  if (c.method == ops::TopkMethod::group_limited_greedy) {
    const std::int64_t size = c.num_experts / c.num_groups;
    Row best;
    for (std::int64_t g = 0; g < c.num_groups; ++g)
      best.push_back(*std::max_element(scores.begin() + g * size, scores.begin() + (g + 1) * size));
    const std::vector<std::int64_t> groups = ranking(best);
    for (std::int64_t closed = c.topk_group; closed < c.num_groups; ++closed)
      std::fill_n(scores.begin() + groups[at(closed)] * size, size, 0.0);
  }
  std::vector<std::int64_t> order = ranking(scores);
  order.resize(at(c.k));
  return order;
}

Row weights_of(const RouterCase& c, const Row& scores, const std::vector<std::int64_t>& chosen) {
  double sum = 1e-20;
  for (const std::int64_t i : chosen) sum += scores[at(i)];
  Row weights;
  for (const std::int64_t i : chosen)
    weights.push_back(c.normalize ? scores[at(i)] / sum : scores[at(i)] * c.scaling_factor);
  return weights;
}

// The router of one case with all its tensors.
struct Router {
  explicit Router(const RouterCase& router_case, DType dtype = DType::f64, std::int64_t padding = 3)
      : c(router_case),
        logits(dtype, {c.tokens, c.num_experts}, padding),
        scores(dtype, {c.tokens, c.num_experts}, padding),
        indices(DType::i32, {c.tokens, c.k}, padding),
        weights(dtype, {c.tokens, c.k}, padding),
        dweights(dtype, {c.tokens, c.k}, padding),
        dscores(dtype, {c.scopes, c.num_experts}, padding),
        dlogits(dtype, {c.tokens, c.num_experts}, padding) {
    logits.fill_normal(7, 1.5);
    dweights.fill_normal(8);
    dscores.fill_normal(9);
  }

  void forward(bool force_balanced = false) const {
    ops::router_forward(*context, {.logits = logits,
                                   .method = c.method,
                                   .num_groups = c.num_groups,
                                   .topk_group = c.topk_group,
                                   .scaling_factor = c.scaling_factor,
                                   .normalize = c.normalize,
                                   .force_balanced = force_balanced,
                                   .scores = scores,
                                   .indices = indices,
                                   .weights = weights});
  }
  void backward(bool with_balance = true) const {
    ops::router_backward(*context, {.scores = scores,
                                    .indices = indices,
                                    .dweights = dweights,
                                    .dscores = with_balance ? dscores.view() : TensorView{},
                                    .scaling_factor = c.scaling_factor,
                                    .normalize = c.normalize,
                                    .dlogits = dlogits});
  }

  Row row(const TestTensor& tensor, std::int64_t t) const {
    const Row all = tensor.values();
    const std::int64_t width = tensor.shape()[1];
    return {all.begin() + t * width, all.begin() + (t + 1) * width};
  }
  std::vector<std::int64_t> chosen(std::int64_t t) const {
    std::vector<std::int64_t> result;
    for (const double index : row(indices, t)) result.push_back(static_cast<std::int64_t>(index));
    return result;
  }

  RouterCase c;
  CpuContext context;
  TestTensor logits, scores, indices, weights, dweights, dscores, dlogits;
};

class RouterOp : public ::testing::TestWithParam<RouterCase> {};

TEST_P(RouterOp, ForwardFollowsTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Router router(GetParam(), dtype);
    router.forward();
    const double bound = dtype == DType::f32 ? 2e-6 : 1e-14;
    EXPECT_TRUE(router.indices.padding_is_intact());
    EXPECT_TRUE(router.weights.padding_is_intact());
    EXPECT_TRUE(router.scores.padding_is_intact());
    for (std::int64_t t = 0; t < router.c.tokens; ++t) {
      const Row scores = softmax(router.row(router.logits, t));
      EXPECT_TRUE(is_close(router.row(router.scores, t), scores, bound, 1e-30));
      // Chosen by the scores that the op wrote, so that rounding cannot turn the order.
      EXPECT_EQ(router.chosen(t), choose(router.c, router.row(router.scores, t)));
      EXPECT_TRUE(
          is_close(router.row(router.weights, t), weights_of(router.c, scores, router.chosen(t)), 2 * bound, 1e-30));
    }
  }
}

// Weights with the choice held fixed, plus the balance term; all as functions of the logits.
TEST_P(RouterOp, BackwardIsTheGradient) {
  const Router router(GetParam());
  const RouterCase& c = router.c;
  router.forward();
  for (const bool with_balance : {false, true}) {
    router.backward(with_balance);
    Row expected;
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      const std::vector<std::int64_t> chosen = router.chosen(t);
      const Row dweights = router.row(router.dweights, t);
      const Row balance = router.row(router.dscores, t / (c.tokens / c.scopes));
      const TestTensor logits(DType::f64, {c.num_experts});
      const Row row = router.row(router.logits, t);
      std::copy(row.begin(), row.end(), logits.view().as<double>());
      const Row gradient = finite_differences(logits, [&] {
        const Row scores = softmax(logits.values());
        const Row weights = weights_of(c, scores, chosen);
        double loss = std::inner_product(weights.begin(), weights.end(), dweights.begin(), 0.0);
        if (with_balance) loss = std::inner_product(scores.begin(), scores.end(), balance.begin(), loss);
        return loss;
      });
      expected.insert(expected.end(), gradient.begin(), gradient.end());
    }
    EXPECT_TRUE(is_close(router.dlogits, expected, 1e-7, 1e-8));
  }
}

TEST_P(RouterOp, SinglePrecisionBackwardAgreesWithDouble) {
  const Router wide(GetParam(), DType::f64);
  const Router single(GetParam(), DType::f32, 0);
  wide.forward();
  single.forward();
  ASSERT_EQ(single.indices.values(), wide.indices.values());
  wide.backward();
  single.backward();
  EXPECT_TRUE(is_close(single.dlogits, wide.dlogits.values(), 1e-5, 2e-6 * (1 + single.c.scaling_factor)));
}

TEST_P(RouterOp, ForceBalancedGivesEachExpertItsTurn) {
  const Router router(GetParam());
  const RouterCase& c = router.c;
  router.forward(true);
  std::vector<int> counts(at(c.num_experts), 0);
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    const std::vector<std::int64_t> chosen = router.chosen(t);
    for (std::int64_t j = 0; j < c.k; ++j) {
      EXPECT_EQ(chosen[at(j)], (t * c.k + j) % c.num_experts);
      ++counts[at(chosen[at(j)])];
    }
    EXPECT_TRUE(is_close(router.row(router.weights, t), weights_of(c, softmax(router.row(router.logits, t)), chosen),
                         1e-13, 0));
  }
  EXPECT_LE(*std::max_element(counts.begin(), counts.end()) - *std::min_element(counts.begin(), counts.end()), 1);
}

TEST_P(RouterOp, IsBitEqualOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    const Router router(GetParam(), DType::f32);
    router.forward();
    router.backward();
    return std::vector<TestTensor>{router.scores, router.indices, router.weights, router.dlogits};
  });
}

// What no row of random numbers holds: every index must still name an expert, each once.
TEST_P(RouterOp, ChoosesDistinctExpertsWhateverTheLogits) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const RouterCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64})
    for (const double filler : {0.0, 1e30, -1e30, kInf, -kInf, kNan})
      for (const double other : {0.0, -1e30, 1e30, kInf, -kInf, kNan}) {
        Router router(c, dtype);
        router.logits.fill(filler);
        store(router.logits, c.num_experts / 2, other);
        router.forward();
        router.backward();
        for (std::int64_t t = 0; t < c.tokens; ++t) {
          const std::vector<std::int64_t> chosen = router.chosen(t);
          const std::set<std::int64_t> distinct(chosen.begin(), chosen.end());
          EXPECT_EQ(distinct.size(), at(c.k));
          EXPECT_TRUE(*distinct.begin() >= 0 && *distinct.rbegin() < c.num_experts);
        }
        // NaN is not hidden: the first row's scores and weights show it.
        if (std::isnan(other) || (std::isnan(filler) && c.num_experts > 1)) {
          EXPECT_TRUE(std::isnan(router.scores.values()[0]));
          EXPECT_TRUE(std::isnan(router.weights.values()[0]));
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Cases, RouterOp, ::testing::ValuesIn(cases::router_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(RouterChoice, OfEqualScoresTakesTheLowerIndex) {
  Router router({"", 2, 6, 3});
  router.logits.set({1, 2, 1, 2, 1, 2, /**/ 0, 0, 0, 0, 0, 0});
  router.forward();
  EXPECT_EQ(router.chosen(0), (std::vector<std::int64_t>{1, 3, 5}));
  EXPECT_EQ(router.chosen(1), (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(RouterChoice, StaysInTheGroupsOfLargestMaximum) {
  Router router({"", 3, 8, 3, ops::TopkMethod::group_limited_greedy, 4, 2});
  // The second best expert is in a group whose best is third; equal groups: the lower first.
  router.logits.set({5, 1, 4.9, 4.8, 4, 4, 3, 3, /**/ 1, 0, 2, 0, 3, 2.5, 2.9, 0, /**/ 0, 0, 0, 0, 0, 0, 0, 0});
  router.forward();
  EXPECT_EQ(router.chosen(0), (std::vector<std::int64_t>{0, 2, 3}));
  EXPECT_EQ(router.chosen(1), (std::vector<std::int64_t>{4, 6, 5}));
  EXPECT_EQ(router.chosen(2), (std::vector<std::int64_t>{0, 1, 2}));
}

// Even where an open group's scores underflow to the 0 that stands for closed groups.
TEST(RouterChoice, NeverTakesAnExpertOfAClosedGroup) {
  Router router({"", 1, 4, 2, ops::TopkMethod::group_limited_greedy, 2, 1});
  router.logits.set({0, 0, 5000, 0});
  router.forward();
  EXPECT_EQ(router.chosen(0), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(router.weights.values(), (Row{1, 0}));
}

TEST(RouterChecks, RefusesWhatCannotBeChosen) {
  using enum ops::TopkMethod;
  EXPECT_THROW(Router({"", 2, 4, 5}).forward(), Error);
  EXPECT_THROW(Router({"", 2, 4, 1, group_limited_greedy, 3, 1}).forward(), Error);
  EXPECT_THROW(Router({"", 2, 4, 1, group_limited_greedy, 0, 1}).forward(), Error);
  EXPECT_THROW(Router({"", 2, 4, 1, group_limited_greedy, 2, 3}).forward(), Error);
  EXPECT_THROW(Router({"", 2, 4, 1, group_limited_greedy, 2, 0}).forward(), Error);
  EXPECT_THROW(Router({"", 2, 4, 3, group_limited_greedy, 2, 1}).forward(), Error);
  EXPECT_NO_THROW(Router({"", 2, 4, 1, greedy, 0, 0}).forward());
  const Router uneven({"", 5, 4, 1, greedy, 1, 1, 1.0, false, 2});
  uneven.forward();
  EXPECT_THROW(uneven.backward(), Error);
}

}  // namespace
}  // namespace lathe::testing
