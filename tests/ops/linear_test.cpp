#include "ops/linear.h"

#include "cases/linear_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

struct LinearRun {
  LinearRun(const cases::LinearCase& c, DType dtype)
      : x(dtype, {c.rows, c.in}, c.padding),
        weight(dtype, {c.out, c.in}, c.padding),
        bias(dtype, {c.out}),
        out(dtype, {c.rows, c.out}, c.padding),
        dout(dtype, {c.rows, c.out}, c.padding),
        dx(dtype, {c.rows, c.in}, c.padding),
        dweight(dtype, {c.out, c.in}, c.padding),
        dbias(dtype, {c.out}) {
    x.fill_normal(1);
    weight.fill_normal(2);
    bias.fill_normal(3);
    dout.fill_normal(4);
    dweight.fill_normal(5);
    dbias.fill_normal(6);
  }
  void forward() { ops::linear_forward(*context, {.x = x, .weight = weight, .out = out}); }
  void backward() {
    ops::linear_backward(*context,
                         {.dout = dout, .x = x, .weight = weight, .dx = dx, .dweight = dweight, .dbias = dbias});
  }

  CpuContext context;
  TestTensor x, weight, bias, out, dout, dx, dweight, dbias;
};

using Values = std::vector<double>;

// c[i, j] += sum_l a[i * ai + l * al] * b[l * bl + j * bj]
void add_product(const Values& a, std::int64_t ai, std::int64_t al, const Values& b, std::int64_t bl, std::int64_t bj,
                 std::int64_t rows, std::int64_t depth, std::int64_t columns, Values& c) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t l = 0; l < depth; ++l)
      for (std::int64_t j = 0; j < columns; ++j)
        c[static_cast<std::size_t>(i * columns + j)] +=
            a[static_cast<std::size_t>(i * ai + l * al)] * b[static_cast<std::size_t>(l * bl + j * bj)];
}

Values product_of(const LinearRun& run, const cases::LinearCase& c) {
  Values out(static_cast<std::size_t>(c.rows * c.out));
  add_product(run.x.values(), c.in, 1, run.weight.values(), 1, c.in, c.rows, c.in, c.out, out);
  return out;
}

// What fp32 may be off by for a sum of `terms` products of normal numbers.
double rounding(std::int64_t terms) { return 2e-7 * (8 + static_cast<double>(terms)); }

class Linear : public ::testing::TestWithParam<cases::LinearCase> {};

TEST_P(Linear, ForwardEqualsTheFormula) {
  const cases::LinearCase& c = GetParam();
  LinearRun run(c, DType::f64);
  LinearRun single(c, DType::f32);
  const Values expected = product_of(run, c);
  run.forward();
  single.forward();
  EXPECT_TRUE(is_close(run.out, expected, 1e-13, 1e-12));
  EXPECT_TRUE(is_close(single.out, expected, 1e-6, rounding(c.in)));
}

TEST_P(Linear, ForwardAddsBiasAndAccumulates) {
  const cases::LinearCase& c = GetParam();
  const LinearRun inputs(c, DType::f64);
  const Values product = product_of(inputs, c);
  for (const DType dtype : {DType::f64, DType::f32})
    for (const bool with_bias : {false, true})
      for (const bool accumulate : {false, true}) {
        LinearRun run(c, dtype);
        Values expected = product;
        if (accumulate) run.out.fill(2.5);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          if (accumulate) expected[i] += 2.5;
          if (with_bias) expected[i] += run.bias.values()[i % static_cast<std::size_t>(c.out)];
          if (i > 3000) break;  // the rest of a large case is compared by ForwardEqualsTheFormula
        }
        expected.resize(std::min<std::size_t>(expected.size(), 3000));
        ops::LinearForward op{.x = run.x, .weight = run.weight, .out = run.out, .accumulate = accumulate};
        if (with_bias) op.bias = run.bias;
        ops::linear_forward(*run.context, op);
        ASSERT_TRUE(run.out.padding_is_intact());
        Values out = run.out.values();
        out.resize(expected.size());
        const double bound = dtype == DType::f64 ? 1e-12 : rounding(c.in);
        EXPECT_TRUE(is_close(out, expected, bound, bound)) << "bias " << with_bias << ", accumulate " << accumulate;
      }
}

TEST_P(Linear, BackwardEqualsTheFormula) {
  const cases::LinearCase& c = GetParam();
  LinearRun run(c, DType::f64);
  LinearRun single(c, DType::f32);
  Values dx(static_cast<std::size_t>(c.rows * c.in));
  Values dweight = run.dweight.values();
  Values dbias = run.dbias.values();
  add_product(run.dout.values(), c.out, 1, run.weight.values(), c.in, 1, c.rows, c.out, c.in, dx);
  add_product(run.dout.values(), 1, c.out, run.x.values(), c.in, 1, c.out, c.rows, c.in, dweight);
  add_product(Values(static_cast<std::size_t>(c.rows), 1.0), 0, 1, run.dout.values(), c.out, 1, 1, c.rows, c.out,
              dbias);
  run.backward();
  single.backward();
  EXPECT_TRUE(is_close(run.dx, dx, 1e-13, 1e-12));
  EXPECT_TRUE(is_close(run.dweight, dweight, 1e-13, 1e-11));
  EXPECT_TRUE(is_close(run.dbias, dbias, 1e-13, 1e-11));
  EXPECT_TRUE(is_close(single.dx, dx, 1e-6, rounding(c.out)));
  EXPECT_TRUE(is_close(single.dweight, dweight, 1e-6, rounding(c.rows)));
  EXPECT_TRUE(is_close(single.dbias, dbias, 1e-6, rounding(c.rows)));
}

TEST_P(Linear, GradientsAreOptional) {
  const cases::LinearCase& c = GetParam();
  LinearRun run(c, DType::f32);
  LinearRun apart(c, DType::f32);
  run.backward();
  apart.dx.fill(1.5);
  ops::linear_backward(*apart.context,
                       {.dout = apart.dout, .weight = apart.weight, .dx = apart.dx, .accumulate_dx = true});
  ops::linear_backward(*apart.context, {.dout = apart.dout, .x = apart.x, .dweight = apart.dweight});
  ops::linear_backward(*apart.context, {.dout = apart.dout, .dbias = apart.dbias});
  EXPECT_TRUE(apart.dweight.same_bits(run.dweight));
  EXPECT_TRUE(apart.dbias.same_bits(run.dbias));
  Values dx = run.dx.values();
  for (double& value : dx) value += 1.5;
  EXPECT_TRUE(is_close(apart.dx, dx, 1e-6, rounding(c.out)));
}

TEST_P(Linear, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    LinearRun run(GetParam(), DType::f32);
    run.forward();
    run.backward();
    return std::vector{run.out, run.dx, run.dweight, run.dbias};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Linear, ::testing::ValuesIn(cases::linear_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(LinearInput, NanReachesItsRowOnly) {
  LinearRun run({"", 3, 5, 7, 0}, DType::f32);
  run.x.view().as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  run.forward();
  const Values out = run.out.values();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 7 == 1) << i;
}

TEST(LinearInput, ClashesAreNamed) {
  LinearRun run({"", 3, 5, 7, 0}, DType::f32);
  TestTensor wrong(DType::f64, {3, 7});
  try {
    ops::linear_forward(*run.context, {.x = run.x, .weight = run.weight, .out = wrong});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "linear_forward: out is f64 [3, 7], expected f32");
  }
}

}  // namespace
}  // namespace lathe::testing
