#include "ops/cross_entropy.h"

#include "cases/cross_entropy_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

constexpr double kScale = 0.37;
constexpr double kLossBefore = 5.0;

struct LossRun {
  LossRun(const cases::CrossEntropyCase& c, DType dtype)
      : logits(dtype, {c.rows, c.vocab}, c.padding),
        targets(DType::i32, {c.rows}),
        loss(DType::f64, {1}),
        dlogits(dtype, {c.rows, c.vocab}, c.padding) {
    logits.fill_normal(1, 3.0);
    targets.fill_below(2, c.vocab);
    if (c.ignore_every > 0)
      for (std::int64_t t = c.ignore_every - 1; t < c.rows; t += c.ignore_every)
        targets.view().as<std::int32_t>()[t] = ops::kIgnoreIndex;
    loss.fill(kLossBefore);
  }
  void run(const TensorView& gradient) {
    ops::cross_entropy(*context,
                       {.logits = logits, .targets = targets, .scale = kScale, .loss = loss, .dlogits = gradient});
  }
  double loss_value() const { return loss.values()[0]; }

  CpuContext context;
  TestTensor logits, targets, loss, dlogits;
};

// In long double, from the definition.
double reference_loss(const LossRun& run, const cases::CrossEntropyCase& c) {
  const std::vector<double> logits = run.logits.values();
  const std::vector<double> targets = run.targets.values();
  const auto vocab = static_cast<std::size_t>(c.vocab);
  long double loss = 0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    long double sum = 0;
    for (std::size_t j = 0; j < vocab; ++j) sum += std::exp(static_cast<long double>(logits[t * vocab + j]));
    loss += std::log(sum) - static_cast<long double>(logits[t * vocab + static_cast<std::size_t>(targets[t])]);
  }
  return kLossBefore + kScale * static_cast<double>(loss);
}

class CrossEntropy : public ::testing::TestWithParam<cases::CrossEntropyCase> {};

TEST_P(CrossEntropy, LossEqualsTheFormula) {
  const cases::CrossEntropyCase& c = GetParam();
  LossRun run(c, DType::f64);
  LossRun single(c, DType::f32);
  const double expected = reference_loss(run, c);
  run.run(run.dlogits);
  single.run(single.dlogits);
  EXPECT_NEAR(run.loss_value(), expected, 1e-13 * expected);
  EXPECT_NEAR(single.loss_value(), expected, 1e-6 * expected);
}

TEST_P(CrossEntropy, GradientEqualsFiniteDifferences) {
  const cases::CrossEntropyCase& c = GetParam();
  if (c.rows * c.vocab > 500) GTEST_SKIP() << "too many elements for finite differences";
  LossRun run(c, DType::f64);
  run.run(run.dlogits);
  const auto loss = [&] {
    run.loss.fill(0);
    run.run({});
    return run.loss_value();
  };
  EXPECT_TRUE(is_close(run.dlogits, finite_differences(run.logits, loss), 1e-7, 1e-9));
}

TEST_P(CrossEntropy, SinglePrecisionIsNearDouble) {
  LossRun run(GetParam(), DType::f64);
  LossRun single(GetParam(), DType::f32);
  run.run(run.dlogits);
  single.run(single.dlogits);
  EXPECT_TRUE(is_close(single.dlogits, run.dlogits.values(), 2e-6, 1e-7));
}

TEST_P(CrossEntropy, LogitsMayBeOverwrittenAndGradientLeftOut) {
  LossRun run(GetParam(), DType::f32);
  LossRun in_place(GetParam(), DType::f32);
  LossRun loss_only(GetParam(), DType::f32);
  run.run(run.dlogits);
  in_place.run(in_place.logits);
  loss_only.run({});
  EXPECT_TRUE(is_close(in_place.logits, run.dlogits.values(), 0, 0));
  EXPECT_EQ(in_place.loss_value(), run.loss_value());
  EXPECT_EQ(loss_only.loss_value(), run.loss_value());
}

TEST_P(CrossEntropy, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    LossRun run(GetParam(), DType::f32);
    run.run(run.dlogits);
    return std::vector{run.loss, run.dlogits};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, CrossEntropy, ::testing::ValuesIn(cases::cross_entropy_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(CrossEntropyInput, LargeLogitsDoNotOverflow) {
  LossRun run({"", 1, 3, 0, 0}, DType::f32);
  run.logits.set({1e4, -1e4, 1e4});
  run.targets.set({1});
  run.run(run.dlogits);
  EXPECT_NEAR(run.loss_value(), kLossBefore + kScale * (2e4 + std::log(2.0)), 1e-9);
  EXPECT_TRUE(is_close(run.dlogits, {kScale / 2, -kScale, kScale / 2}, 1e-6, 0));
}

TEST(CrossEntropyInput, NanReachesLossAndItsRow) {
  LossRun run({"", 3, 21, 0, 0}, DType::f32);
  run.logits.view().as<float>()[21 + 20] = std::numeric_limits<float>::quiet_NaN();
  run.run(run.dlogits);
  EXPECT_TRUE(std::isnan(run.loss_value()));
  const std::vector<double> dlogits = run.dlogits.values();
  for (std::size_t i = 0; i < dlogits.size(); ++i) EXPECT_EQ(std::isnan(dlogits[i]), i / 21 == 1) << i;
}

TEST(CrossEntropyInput, TargetOutsideTheVocabularyIsNamed) {
  for (const double wrong : {3.0, -1.0, -101.0}) {
    LossRun run({"", 2, 3, 0, 0}, DType::f32);
    run.targets.set({0, wrong});
    try {
      run.run(run.dlogits);
      FAIL() << "accepted " << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()),
                fmt::format("cross_entropy: target 1 is {}, expected [0, 3) or -100", static_cast<int>(wrong)));
    }
  }
}

}  // namespace
}  // namespace lathe::testing
