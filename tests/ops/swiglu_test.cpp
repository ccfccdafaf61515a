#include "ops/swiglu.h"

#include "cases/swiglu_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

struct SwigluRun {
  SwigluRun(const cases::SwigluCase& c, DType dtype)
      : gate_up(dtype, {c.rows, 2 * c.width}, c.padding),
        out(dtype, {c.rows, c.width}, c.padding),
        dout(dtype, {c.rows, c.width}, c.padding),
        dgate_up(dtype, {c.rows, 2 * c.width}, c.padding) {
    gate_up.fill_normal(1, 3.0);
    dout.fill_normal(2);
  }
  void forward() { ops::swiglu_forward(*context, {.gate_up = gate_up, .out = out}); }
  void backward() { ops::swiglu_backward(*context, {.dout = dout, .gate_up = gate_up, .dgate_up = dgate_up}); }

  CpuContext context;
  TestTensor gate_up, out, dout, dgate_up;
};

class Swiglu : public ::testing::TestWithParam<cases::SwigluCase> {};

TEST_P(Swiglu, ForwardEqualsTheFormula) {
  const cases::SwigluCase& c = GetParam();
  SwigluRun run(c, DType::f64);
  run.forward();
  const std::vector<double> gate = values_of(run.gate_up.view().slice(1, 0, c.width));
  const std::vector<double> up = values_of(run.gate_up.view().slice(1, c.width, c.width));
  std::vector<double> expected(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) expected[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  EXPECT_TRUE(is_close(run.out, expected, 1e-14, 1e-300));
}

TEST_P(Swiglu, BackwardEqualsFiniteDifferences) {
  const cases::SwigluCase& c = GetParam();
  if (c.rows * c.width > 500) GTEST_SKIP() << "too many elements for finite differences";
  SwigluRun run(c, DType::f64);
  run.backward();
  const auto loss = [&] {
    run.forward();
    return dot(run.out, run.dout);
  };
  EXPECT_TRUE(is_close(run.dgate_up, finite_differences(run.gate_up, loss), 1e-7, 1e-8));
}

TEST_P(Swiglu, SinglePrecisionIsNearDouble) {
  SwigluRun run(GetParam(), DType::f32);
  SwigluRun exact(GetParam(), DType::f64);
  for (SwigluRun* each : {&run, &exact}) {
    each->forward();
    each->backward();
  }
  EXPECT_TRUE(is_close(run.out, exact.out.values(), 1e-6, 1e-30));
  EXPECT_TRUE(is_close(run.dgate_up, exact.dgate_up.values(), 1e-6, 1e-6));
}

TEST_P(Swiglu, InputMayBeOverwritten) {
  SwigluRun run(GetParam(), DType::f32);
  run.backward();
  const std::vector<double> expected = run.dgate_up.values();
  ops::swiglu_backward(*run.context, {.dout = run.dout, .gate_up = run.gate_up, .dgate_up = run.gate_up});
  EXPECT_TRUE(is_close(run.gate_up, expected, 0, 0));
}

TEST_P(Swiglu, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    SwigluRun run(GetParam(), DType::f32);
    run.forward();
    run.backward();
    return std::vector{run.out, run.dgate_up};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Swiglu, ::testing::ValuesIn(cases::swiglu_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(SwigluInput, LargeGatesSaturateAndNanStays) {
  SwigluRun run({"", 1, 4, 0}, DType::f32);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  run.gate_up.set({200, -200, nan, 1, 2, 2, 2, nan});
  run.dout.fill(1);
  run.forward();
  run.backward();
  EXPECT_TRUE(is_close(run.out.values(), {400, 0, nan, nan}, 0, 0));
  const std::vector<double> dgate_up = run.dgate_up.values();
  EXPECT_TRUE(is_close({dgate_up[0], dgate_up[1], dgate_up[2], dgate_up[3]}, {2, 0, nan, nan}, 0, 0));
  EXPECT_TRUE(is_close({dgate_up[4], dgate_up[5], dgate_up[6]}, {200, 0, nan}, 0, 0));
}

}  // namespace
}  // namespace lathe::testing
