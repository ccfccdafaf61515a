#include "ops/adamw.h"

#include "cases/elementwise_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

struct AdamWRun {
  AdamWRun(std::int64_t count, DType dtype)
      : parameter(dtype, {count}), gradient(dtype, {count}), m(dtype, {count}), v(dtype, {count}) {
    parameter.fill_normal(1);
    m.fill(0);
    v.fill(0);
  }
  ops::AdamW op(std::int64_t step) {
    gradient.fill_normal(static_cast<std::uint64_t>(step) + 10, 0.3);
    return {.parameter = parameter,
            .gradient = gradient,
            .m = m,
            .v = v,
            .grad_scale = 0.5,
            .lr = 0.01 * static_cast<double>(step),
            .beta1 = 0.8,
            .beta2 = 0.95,
            .eps = 1e-4,
            .weight_decay = 0.1,
            .step = step};
  }
  void steps(int count) {
    for (int step = 1; step <= count; ++step) ops::adamw(*context, op(step));
  }

  CpuContext context;
  TestTensor parameter, gradient, m, v;
};

class AdamW : public ::testing::TestWithParam<cases::ElementwiseCase> {};

TEST_P(AdamW, ThreeStepsEqualTheFormula) {
  AdamWRun run(GetParam().count, DType::f64);
  AdamWRun single(GetParam().count, DType::f32);
  std::vector<double> p = run.parameter.values();
  std::vector<double> m(p.size()), v(p.size());
  for (int step = 1; step <= 3; ++step) {
    const ops::AdamW op = run.op(step);
    const std::vector<double> gradient = run.gradient.values();
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double g = gradient[i] * op.grad_scale;
      p[i] -= op.lr * op.weight_decay * p[i];
      m[i] = op.beta1 * m[i] + (1 - op.beta1) * g;
      v[i] = op.beta2 * v[i] + (1 - op.beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(op.beta1, step));
      const double v_hat = v[i] / (1 - std::pow(op.beta2, step));
      p[i] -= op.lr * m_hat / (std::sqrt(v_hat) + op.eps);
    }
    ops::adamw(*run.context, op);
  }
  single.steps(3);
  EXPECT_TRUE(is_close(run.parameter, p, 1e-14, 1e-15));
  EXPECT_TRUE(is_close(run.m, m, 1e-14, 1e-15));
  EXPECT_TRUE(is_close(run.v, v, 1e-14, 1e-15));
  EXPECT_TRUE(is_close(single.parameter, p, 1e-6, 1e-7));
  EXPECT_TRUE(is_close(single.m, m, 1e-6, 1e-7));
  EXPECT_TRUE(is_close(single.v, v, 1e-6, 1e-8));
}

TEST_P(AdamW, LeavesARoundedParameter) {
  AdamWRun run(GetParam().count, DType::f32);
  AdamWRun plain(GetParam().count, DType::f32);
  const TestTensor rounded(DType::bf16, {GetParam().count});
  ops::AdamW op = run.op(1);
  op.rounded = rounded;
  ops::adamw(*run.context, op);
  plain.steps(1);
  EXPECT_TRUE(run.parameter.same_bits(plain.parameter));
  const std::vector<double> parameter = run.parameter.values();
  std::vector<double> expected;
  for (const double value : parameter)
    expected.push_back(static_cast<double>(static_cast<float>(bf16(static_cast<float>(value)))));
  EXPECT_TRUE(is_close(rounded, expected, 0, 0));
}

TEST_P(AdamW, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    AdamWRun run(GetParam().count, DType::f32);
    run.steps(2);
    return std::vector{run.parameter, run.m, run.v};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, AdamW, ::testing::ValuesIn(cases::elementwise_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(AdamWInput, ZeroGradientOnlyDecays) {
  AdamWRun run(5, DType::f64);
  ops::AdamW op = run.op(1);
  run.gradient.fill(0);
  std::vector<double> expected = run.parameter.values();
  for (double& value : expected) value *= 1 - op.lr * op.weight_decay;
  ops::adamw(*run.context, op);
  EXPECT_TRUE(is_close(run.parameter, expected, 1e-15, 0));
}

TEST(AdamWInput, NanReachesItsElementOnly) {
  AdamWRun run(40, DType::f32);
  const ops::AdamW op = run.op(1);
  run.gradient.view().as<float>()[17] = std::numeric_limits<float>::quiet_NaN();
  ops::adamw(*run.context, op);
  const std::vector<double> p = run.parameter.values();
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_EQ(std::isnan(p[i]), i == 17) << i;
}

TEST(AdamWInput, ClashesAreNamed) {
  AdamWRun run(5, DType::f32);
  const auto message = [&](const ops::AdamW& op) -> std::string {
    try {
      ops::adamw(*run.context, op);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  TestTensor other(DType::f32, {6});
  ops::AdamW op = run.op(1);
  op.m = other;
  EXPECT_EQ(message(op), "adamw: m is f32 [6], parameter is f32 [5]");
  op = run.op(1);
  op.step = 0;
  EXPECT_EQ(message(op), "adamw: step is 0, expected at least 1");
  op = run.op(1);
  op.beta2 = 1;
  EXPECT_EQ(message(op), "adamw: betas are 0.8 and 1, expected each in [0, 1)");
}

}  // namespace
}  // namespace lathe::testing
