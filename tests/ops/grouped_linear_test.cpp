#include "ops/grouped_linear.h"

#include <numeric>

#include "cases/grouped_linear_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

using Values = std::vector<double>;

std::int64_t used_rows(const cases::GroupedLinearCase& c) {
  return std::accumulate(c.rows.begin(), c.rows.end(), std::int64_t{0});
}

struct GroupedRun {
  GroupedRun(const cases::GroupedLinearCase& c, DType dtype)
      : groups(static_cast<std::int64_t>(c.rows.size())),
        rows(used_rows(c) + c.unused_rows),
        x(dtype, {rows, c.in}, c.padding),
        weight(dtype, {groups, c.out, c.in}, c.padding),
        offsets(DType::i32, {groups + 1}),
        out(dtype, {rows, c.out}, c.padding),
        dout(dtype, {rows, c.out}, c.padding),
        dx(dtype, {rows, c.in}, c.padding),
        dweight(dtype, {groups, c.out, c.in}, c.padding) {
    Values begins{0};
    for (const std::int32_t count : c.rows) begins.push_back(begins.back() + count);
    offsets.set(begins);
    x.fill_normal(1);
    weight.fill_normal(2);
    dout.fill_normal(3);
    dweight.fill_normal(4);
    // Rows behind the last group stay NaN: whoever reads them shows it.
    for (TestTensor* tensor : {&x, &dout}) {
      const TensorView unused = tensor->view().slice(0, used_rows(c), c.unused_rows);
      for_each_element(unused, [&](std::int64_t offset, std::int64_t) { store(unused, offset, std::nan("")); });
    }
  }
  void forward() { ops::grouped_linear_forward(*context, {.x = x, .weight = weight, .offsets = offsets, .out = out}); }
  void backward() {
    ops::grouped_linear_backward(
        *context, {.dout = dout, .x = x, .weight = weight, .offsets = offsets, .dx = dx, .dweight = dweight});
  }

  CpuContext context;
  std::int64_t groups;
  std::int64_t rows;
  TestTensor x, weight, offsets, out, dout, dx, dweight;
};

struct Expected {
  Values out, dx, dweight;
};

// Row by row, from the definition. Unused rows are NaN, as they were.
Expected reference(const cases::GroupedLinearCase& c) {
  const GroupedRun run(c, DType::f64);
  const Values x = run.x.values();
  const Values weight = run.weight.values();
  const Values dout = run.dout.values();
  Expected expected{run.out.values(), run.dx.values(), run.dweight.values()};
  const auto in = static_cast<std::size_t>(c.in);
  const auto out = static_cast<std::size_t>(c.out);
  std::size_t row = 0;
  for (std::size_t e = 0; e < c.rows.size(); ++e)
    for (std::int32_t i = 0; i < c.rows[e]; ++i, ++row) {
      std::fill_n(expected.dx.begin() + static_cast<std::int64_t>(row * in), c.in, 0.0);
      for (std::size_t o = 0; o < out; ++o) {
        const std::size_t w = (e * out + o) * in;
        double sum = 0;
        for (std::size_t j = 0; j < in; ++j) {
          sum += x[row * in + j] * weight[w + j];
          expected.dx[row * in + j] += dout[row * out + o] * weight[w + j];
          expected.dweight[w + j] += dout[row * out + o] * x[row * in + j];
        }
        expected.out[row * out + o] = sum;
      }
    }
  return expected;
}

double rounding(std::int64_t terms) { return 2e-7 * (8 + static_cast<double>(terms)); }

class GroupedLinear : public ::testing::TestWithParam<cases::GroupedLinearCase> {};

TEST_P(GroupedLinear, EqualsTheFormula) {
  const cases::GroupedLinearCase& c = GetParam();
  const Expected expected = reference(c);
  GroupedRun run(c, DType::f64);
  GroupedRun single(c, DType::f32);
  for (GroupedRun* each : {&run, &single}) {
    each->forward();
    each->backward();
  }
  EXPECT_TRUE(is_close(run.out, expected.out, 1e-13, 1e-12));
  EXPECT_TRUE(is_close(run.dx, expected.dx, 1e-13, 1e-12));
  EXPECT_TRUE(is_close(run.dweight, expected.dweight, 1e-13, 1e-11));
  EXPECT_TRUE(is_close(single.out, expected.out, 1e-6, rounding(c.in)));
  EXPECT_TRUE(is_close(single.dx, expected.dx, 1e-6, rounding(c.out)));
  EXPECT_TRUE(is_close(single.dweight, expected.dweight, 1e-6, rounding(used_rows(c))));
}

TEST_P(GroupedLinear, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    GroupedRun run(GetParam(), DType::f32);
    run.forward();
    run.backward();
    return std::vector{run.out, run.dx, run.dweight};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, GroupedLinear, ::testing::ValuesIn(cases::grouped_linear_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(GroupedLinearInput, OffsetsAreChecked) {
  const auto message = [](const Values& offsets) -> std::string {
    GroupedRun run({"", {2, 2}, 0, 3, 3, 0}, DType::f32);
    run.offsets.set(offsets);
    try {
      run.forward();
    } catch (const Error& error) {
      EXPECT_THROW(run.backward(), Error);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({0, 2, 4}), "accepted");
  EXPECT_EQ(message({1, 2, 4}), "grouped_linear_forward: offset 0 is 1, expected 0");
  EXPECT_EQ(message({0, 3, 2}), "grouped_linear_forward: offset 2 is 2, expected [3, 4]");
  EXPECT_EQ(message({0, 2, 5}), "grouped_linear_forward: offset 2 is 5, expected [2, 4]");
}

}  // namespace
}  // namespace lathe::testing
