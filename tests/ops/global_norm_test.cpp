#include "ops/global_norm.h"

#include "cases/elementwise_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

double sum_of_squares(const TestTensor& x, double before) {
  CpuContext context;
  TestTensor out(DType::f64, {1});
  out.fill(before);
  ops::sum_of_squares(*context, {.x = x, .out = out});
  return out.values()[0];
}

class SumOfSquares : public ::testing::TestWithParam<cases::ElementwiseCase> {};

TEST_P(SumOfSquares, EqualsTheFormula) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    TestTensor x(dtype, {GetParam().count});
    x.fill_normal(1);
    long double expected = 3.5L;
    for (const double value : x.values()) expected += static_cast<long double>(value) * value;
    EXPECT_NEAR(sum_of_squares(x, 3.5), static_cast<double>(expected), 1e-12 * static_cast<double>(expected));
  }
}

TEST_P(SumOfSquares, SameBitsOnAnyThreads) {
  TestTensor x(DType::f32, {GetParam().count});
  x.fill_normal(1);
  expect_same_bits_on_any_threads([&] {
    TestTensor out(DType::f64, {1});
    out.fill(sum_of_squares(x, 0));
    return std::vector{out};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, SumOfSquares, ::testing::ValuesIn(cases::elementwise_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(SumOfSquaresInput, NonFiniteValuesShow) {
  TestTensor x(DType::f32, {40000});
  x.fill(1);
  x.view().as<float>()[39999] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sum_of_squares(x, 0)));
  x.view().as<float>()[39999] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(sum_of_squares(x, 0), std::numeric_limits<double>::infinity());
}

TEST(SumOfSquaresInput, LargeFloatsDoNotOverflow) {
  TestTensor x(DType::f32, {2});
  x.fill(1e30);
  EXPECT_NEAR(sum_of_squares(x, 0), 2e60, 1e54);
}

}  // namespace
}  // namespace lathe::testing
