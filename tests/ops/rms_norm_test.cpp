#include "ops/rms_norm.h"

#include "cases/rms_norm_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

constexpr double kEps = 1e-3;  // large enough that leaving it out shows

struct NormRun {
  NormRun(const cases::RmsNormCase& c, DType dtype)
      : x(dtype, {c.rows, c.width}, c.padding),
        residual(dtype, {c.rows, c.width}, c.padding),
        weight(dtype, {c.width}),
        out(dtype, {c.rows, c.width}, c.padding),
        sum(dtype, {c.rows, c.width}, c.padding),
        rstd(dtype, {c.rows}),
        dout(dtype, {c.rows, c.width}, c.padding),
        dsum(dtype, {c.rows, c.width}, c.padding),
        dx(dtype, {c.rows, c.width}, c.padding),
        dweight(dtype, {c.width}),
        has_residual(c.residual) {
    x.fill_normal(1);
    residual.fill_normal(2);
    weight.fill_normal(3, 0.2, 1.0);
    dout.fill_normal(4);
    dsum.fill_normal(5);
    dweight.fill_normal(6);
  }

  void forward() {
    ops::RmsNormForward op{.x = x, .weight = weight, .eps = kEps, .out = out, .rstd = rstd};
    if (has_residual) {
      op.residual = residual;
      op.sum = sum;
    }
    ops::rms_norm_forward(*context, op);
  }

  // With the gradient of the sum iff there is a residual.
  void backward() {
    ops::RmsNormBackward op{.dout = dout, .x = x, .weight = weight, .rstd = rstd, .dx = dx, .dweight = dweight};
    if (has_residual) {
      op.x = sum;
      op.dsum = dsum;
    }
    ops::rms_norm_backward(*context, op);
  }

  double loss() {
    forward();
    return dot(out, dout) + (has_residual ? dot(sum, dsum) : 0.0);
  }

  CpuContext context;
  TestTensor x, residual, weight, out, sum, rstd, dout, dsum, dx, dweight;
  bool has_residual;
};

class RmsNorm : public ::testing::TestWithParam<cases::RmsNormCase> {};

TEST_P(RmsNorm, ForwardEqualsTheFormula) {
  const cases::RmsNormCase& c = GetParam();
  NormRun run(c, DType::f64);
  run.forward();
  const std::vector<double> x = run.x.values();
  const std::vector<double> residual = run.residual.values();
  const std::vector<double> weight = run.weight.values();
  const auto width = static_cast<std::size_t>(c.width);
  std::vector<double> sum(x.size()), out(x.size()), rstd;
  for (std::size_t t = 0; t < static_cast<std::size_t>(c.rows); ++t) {
    double squares = 0;
    for (std::size_t i = t * width; i < (t + 1) * width; ++i) {
      sum[i] = x[i] + (c.residual ? residual[i] : 0);
      squares += sum[i] * sum[i];
    }
    rstd.push_back(1 / std::sqrt(squares / static_cast<double>(width) + kEps));
    for (std::size_t i = t * width; i < (t + 1) * width; ++i) out[i] = sum[i] * rstd[t] * weight[i % width];
  }
  EXPECT_TRUE(is_close(run.out, out, 1e-13, 1e-13));
  EXPECT_TRUE(is_close(run.rstd, rstd, 1e-13, 0));
  if (c.residual) {
    EXPECT_TRUE(is_close(run.sum, sum, 0, 0));
  }
}

TEST_P(RmsNorm, BackwardEqualsFiniteDifferences) {
  const cases::RmsNormCase& c = GetParam();
  if (c.rows * c.width > 500) GTEST_SKIP() << "too many elements for finite differences";
  NormRun run(c, DType::f64);
  run.forward();
  std::vector<double> dweight = run.dweight.values();
  run.backward();
  EXPECT_TRUE(is_close(run.dx, finite_differences(run.x, [&] { return run.loss(); }), 1e-7, 1e-8));
  if (c.residual) {
    EXPECT_TRUE(is_close(run.dx, finite_differences(run.residual, [&] { return run.loss(); }), 1e-7, 1e-8));
  }
  const std::vector<double> added = finite_differences(run.weight, [&] { return run.loss(); });
  for (std::size_t i = 0; i < added.size(); ++i) dweight[i] += added[i];
  EXPECT_TRUE(is_close(run.dweight, dweight, 1e-7, 1e-8));
}

TEST_P(RmsNorm, SinglePrecisionIsNearDouble) {
  const cases::RmsNormCase& c = GetParam();
  NormRun run(c, DType::f32);
  NormRun exact(c, DType::f64);
  for (NormRun* each : {&run, &exact}) {
    each->forward();
    each->backward();
  }
  const double root = std::sqrt(static_cast<double>(c.rows));
  EXPECT_TRUE(is_close(run.out, exact.out.values(), 1e-6, 1e-7));
  EXPECT_TRUE(is_close(run.rstd, exact.rstd.values(), 1e-6, 0));
  EXPECT_TRUE(is_close(run.dx, exact.dx.values(), 1e-6, 2e-6));
  EXPECT_TRUE(is_close(run.dweight, exact.dweight.values(), 1e-6, 1e-6 * (1 + root)));
}

TEST_P(RmsNorm, GradientOfTheSumMayBeOverwritten) {
  NormRun run(GetParam(), DType::f32);
  if (!run.has_residual) GTEST_SKIP() << "no residual";
  run.forward();
  run.backward();
  const std::vector<double> expected = run.dx.values();
  ops::rms_norm_backward(*run.context, {.dout = run.dout,
                                        .x = run.sum,
                                        .weight = run.weight,
                                        .rstd = run.rstd,
                                        .dsum = run.dsum,
                                        .dx = run.dsum,
                                        .dweight = run.dweight});
  EXPECT_TRUE(is_close(run.dsum, expected, 0, 0));
}

TEST_P(RmsNorm, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    NormRun run(GetParam(), DType::f32);
    run.forward();
    run.backward();
    return std::vector{run.out, run.rstd, run.dx, run.dweight};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, RmsNorm, ::testing::ValuesIn(cases::rms_norm_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(RmsNormInput, NanStaysInItsRow) {
  NormRun run({"", 3, 21, 0, false}, DType::f32);
  run.x.view().as<float>()[21 + 4] = std::numeric_limits<float>::quiet_NaN();
  run.forward();
  run.backward();
  const std::vector<double> out = run.out.values();
  const std::vector<double> dx = run.dx.values();
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(std::isnan(out[i]), i / 21 == 1) << i;
    EXPECT_EQ(std::isnan(dx[i]), i / 21 == 1) << i;
  }
  for (const double value : run.dweight.values()) EXPECT_TRUE(std::isnan(value));
}

TEST(RmsNormInput, RstdIsOptional) {
  NormRun run({"", 3, 5, 0, false}, DType::f32);
  run.forward();
  const std::vector<double> expected = run.out.values();
  run.out.poison();
  ops::rms_norm_forward(*run.context, {.x = run.x, .weight = run.weight, .eps = kEps, .out = run.out});
  EXPECT_TRUE(is_close(run.out, expected, 0, 0));
}

TEST(RmsNormInput, ClashesAreNamed) {
  NormRun run({"", 3, 5, 0, true}, DType::f32);
  TestTensor narrow(DType::f32, {4});
  const auto message = [&](const ops::RmsNormForward& op) -> std::string {
    try {
      ops::rms_norm_forward(*run.context, op);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({.x = run.x, .weight = narrow, .out = run.out}),
            "rms_norm_forward: weight is f32 [4], expected [5]");
  EXPECT_EQ(message({.x = run.x, .residual = run.residual, .weight = run.weight, .out = run.out}),
            "rms_norm_forward: sum is not given, expected [3, 5]");
  EXPECT_EQ(message({.x = run.x, .weight = run.weight, .out = run.out, .sum = run.sum}),
            "rms_norm_forward: sum is f32 [3, 5], expected none: there is no residual");
  EXPECT_EQ(message({.x = run.x, .weight = run.weight, .eps = -1, .out = run.out}),
            "rms_norm_forward: eps is -1, expected at least 0");
}

}  // namespace
}  // namespace lathe::testing
