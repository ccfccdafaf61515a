#include "ops/permute.h"

#include <numeric>

#include "cases/permute_cases.h"
#include "core/error.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

using cases::PermuteCase;

// Everything the four ops of one case read, as fp32 or fp64, with padded rows.
struct Tensors {
  explicit Tensors(const PermuteCase& c, DType dtype = DType::f64, std::int64_t padding = 3)
      : indices(DType::i32, {c.tokens, c.k}),
        offsets(DType::i32, {c.num_experts + 1}),
        row_map(DType::i32, {c.tokens, c.k}),
        tokens(dtype, {c.tokens, c.width}, padding),
        rows(dtype, {c.tokens * c.k, c.width}, padding),
        weights(dtype, {c.tokens, c.k}, padding),
        residual(dtype, {c.tokens, c.width}, padding),
        shared(dtype, {c.tokens, c.width}, padding) {
    // Distinct experts for each token, never the last one of several.
    const std::int64_t used = c.num_experts > c.k ? c.num_experts - 1 : c.num_experts;
    for (std::int64_t t = 0; t < c.tokens; ++t)
      for (std::int64_t j = 0; j < c.k; ++j)
        indices.view().as<std::int32_t>()[t * c.k + j] = static_cast<std::int32_t>((t * t * 5 + t * 3 + j) % used);
    tokens.fill_normal(1);
    rows.fill_normal(2);
    weights.fill_normal(3);
    residual.fill_normal(4);
    shared.fill_normal(5);
    ops::permute_plan(*context, {.indices = indices, .offsets = offsets, .row_map = row_map});
  }

  void unpermute(const TensorView& out, const TensorView& given_residual = {},
                 const TensorView& given_shared = {}) const {
    ops::unpermute_forward(*context, {.x = rows,
                                      .weights = weights,
                                      .row_map = row_map,
                                      .residual = given_residual,
                                      .shared = given_shared,
                                      .out = out});
  }
  // The gradient of unpermute for dout = tokens.
  void unpermute_backward(const TensorView& dx, const TensorView& dweights) const {
    ops::unpermute_backward(
        *context, {.dout = tokens, .x = rows, .weights = weights, .row_map = row_map, .dx = dx, .dweights = dweights});
  }

  CpuContext context;
  TestTensor indices, offsets, row_map, tokens, rows, weights, residual, shared;
};

class Permute : public ::testing::TestWithParam<PermuteCase> {};

// The definition itself: sort the choices by (expert, token, choice).
TEST_P(Permute, PlanIsAStableSort) {
  const PermuteCase& c = GetParam();
  const Tensors x(c);
  std::vector<std::int32_t> expert(static_cast<std::size_t>(c.tokens * c.k));
  std::copy_n(x.indices.view().as<std::int32_t>(), expert.size(), expert.begin());
  std::vector<std::size_t> order(expert.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return expert[a] < expert[b]; });
  for (std::size_t sorted = 0; sorted < order.size(); ++sorted)
    EXPECT_EQ(x.row_map.view().as<std::int32_t>()[order[sorted]], static_cast<std::int32_t>(sorted));
  for (std::int32_t e = 0; e <= c.num_experts; ++e)
    EXPECT_EQ(x.offsets.view().as<std::int32_t>()[e],
              std::count_if(expert.begin(), expert.end(), [&](std::int32_t value) { return value < e; }));
}

TEST_P(Permute, ForwardCopiesEachRowToItsPlaces) {
  const PermuteCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensors x(c, dtype);
    const TestTensor out(dtype, {c.tokens * c.k, c.width}, 5);
    ops::permute_forward(*x.context, {.x = x.tokens, .row_map = x.row_map, .out = out});
    EXPECT_TRUE(out.padding_is_intact());
    const std::vector<double> from = x.tokens.values();
    const std::vector<double> to = out.values();
    for (std::int64_t i = 0; i < c.tokens * c.k * c.width; ++i) {
      const std::int64_t choice = i / c.width;
      const std::int64_t sorted = x.row_map.view().as<std::int32_t>()[choice];
      EXPECT_EQ(to[static_cast<std::size_t>(sorted * c.width + i % c.width)],
                from[static_cast<std::size_t>(choice / c.k * c.width + i % c.width)]);
    }
  }
}

// out[t] = base[t] + sum_j w[t, j] x[row_map[t, j]], one element at a time.
std::vector<double> combine(const Tensors& x, const PermuteCase& c, std::vector<double> base, bool weighted) {
  const std::vector<double> rows = x.rows.values();
  const std::vector<double> weights = x.weights.values();
  for (std::int64_t t = 0; t < c.tokens; ++t)
    for (std::int64_t j = 0; j < c.k; ++j)
      for (std::int64_t i = 0; i < c.width; ++i) {
        const std::int64_t sorted = x.row_map.view().as<std::int32_t>()[t * c.k + j];
        const double weight = weighted ? weights[static_cast<std::size_t>(t * c.k + j)] : 1.0;
        base[static_cast<std::size_t>(t * c.width + i)] +=
            weight * rows[static_cast<std::size_t>(sorted * c.width + i)];
      }
  return base;
}

double rounding(DType dtype) { return dtype == DType::f32 ? 2e-6 : 1e-14; }

TEST_P(Permute, BackwardSumsTheRowsOfAToken) {
  const PermuteCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensors x(c, dtype);
    const TestTensor dx(dtype, {c.tokens, c.width}, 2);
    ops::permute_backward(*x.context, {.dout = x.rows, .row_map = x.row_map, .dx = dx});
    const std::vector<double> zeros(static_cast<std::size_t>(c.tokens * c.width), 0.0);
    EXPECT_TRUE(is_close(dx, combine(x, c, zeros, false), rounding(dtype), rounding(dtype)));

    ops::permute_backward(*x.context, {.dout = x.rows, .row_map = x.row_map, .dx = x.tokens, .accumulate = true});
    EXPECT_TRUE(is_close(x.tokens, combine(x, c, Tensors(c).tokens.values(), false), rounding(dtype), rounding(dtype)));
  }
}

TEST_P(Permute, UnpermuteAddsWeightedRowsToWhatIsGiven) {
  const PermuteCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64})
    for (const bool residual : {false, true})
      for (const bool shared : {false, true}) {
        const Tensors x(c, dtype);
        const TestTensor out(dtype, {c.tokens, c.width}, 1);
        x.unpermute(out, residual ? x.residual.view() : TensorView{}, shared ? x.shared.view() : TensorView{});
        std::vector<double> base(static_cast<std::size_t>(c.tokens * c.width), 0.0);
        const std::vector<double> first = x.residual.values();
        const std::vector<double> second = x.shared.values();
        for (std::size_t i = 0; i < base.size(); ++i)
          base[i] = (residual ? first[i] : 0.0) + (shared ? second[i] : 0.0);
        EXPECT_TRUE(is_close(out, combine(x, c, base, true), rounding(dtype), rounding(dtype)));
      }
}

// The cases that differences can be taken of in no time.
class PermuteGradient : public Permute {};

std::vector<PermuteCase> small_cases() {
  std::vector<PermuteCase> small = cases::permute_cases();
  std::erase_if(small, [](const PermuteCase& c) { return c.tokens * c.k * c.width > 2000; });
  return small;
}

TEST_P(PermuteGradient, UnpermuteBackwardIsTheGradient) {
  const PermuteCase& c = GetParam();
  const Tensors x(c);
  const TestTensor out(DType::f64, {c.tokens, c.width});
  const auto loss = [&] {
    x.unpermute(out);
    return dot(out, x.tokens);
  };
  // The op is linear in each argument: a step of 1 leaves only rounding.
  const std::vector<double> expected_dx = finite_differences(x.rows, loss, 1.0);
  const std::vector<double> expected_dweights = finite_differences(x.weights, loss, 1.0);

  for (const bool in_place : {false, true}) {
    const Tensors y(c);
    TestTensor dx(DType::f64, {c.tokens * c.k, c.width}, 4);
    const TestTensor dweights(DType::f64, {c.tokens, c.k}, 1);
    y.unpermute_backward(in_place ? y.rows.view() : dx.view(), dweights);
    const TestTensor& written = in_place ? y.rows : dx;
    EXPECT_TRUE(is_close(written, expected_dx, 1e-9, 1e-9));
    EXPECT_TRUE(is_close(dweights, expected_dweights, 1e-9, 1e-9));
  }
}

// <unpermute(x), y> = <x, unpermute_backward(y)>, at the sizes too large for differences and in fp32.
TEST_P(Permute, UnpermuteBackwardIsTheAdjoint) {
  const PermuteCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensors x(c, dtype);
    const TestTensor out(dtype, {c.tokens, c.width});
    const TestTensor dx(dtype, {c.tokens * c.k, c.width});
    const TestTensor dweights(dtype, {c.tokens, c.k});
    x.unpermute(out);
    x.unpermute_backward(dx, dweights);
    const double expected = dot(out, x.tokens);
    const double bound = rounding(dtype) * (1.0 + static_cast<double>(c.tokens * c.k * c.width));
    EXPECT_NEAR(dot(dx, x.rows), expected, bound);
    EXPECT_NEAR(dot(dweights, x.weights), expected, bound);
  }
}

TEST_P(Permute, IsBitEqualOnAnyThreads) {
  const PermuteCase& c = GetParam();
  expect_same_bits_on_any_threads([&] {
    const Tensors x(c, DType::f32);
    TestTensor permuted(DType::f32, {c.tokens * c.k, c.width});
    TestTensor out(DType::f32, {c.tokens, c.width});
    TestTensor dx(DType::f32, {c.tokens, c.width});
    TestTensor drows(DType::f32, {c.tokens * c.k, c.width});
    TestTensor dweights(DType::f32, {c.tokens, c.k});
    ops::permute_forward(*x.context, {.x = x.tokens, .row_map = x.row_map, .out = permuted});
    ops::permute_backward(*x.context, {.dout = x.rows, .row_map = x.row_map, .dx = dx});
    x.unpermute(out, x.residual, x.shared);
    x.unpermute_backward(drows, dweights);
    return std::vector<TestTensor>{x.row_map, x.offsets, permuted, out, dx, drows, dweights};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, PermuteGradient, ::testing::ValuesIn(small_cases()),
                         [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(Cases, Permute, ::testing::ValuesIn(cases::permute_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(PermuteChecks, RefusesExpertsOutOfRange) {
  const CpuContext context;
  TestTensor indices(DType::i32, {2, 1});
  const TestTensor offsets(DType::i32, {4});
  const TestTensor row_map(DType::i32, {2, 1});
  for (const double bad : {3.0, -1.0}) {
    indices.set({0, bad});
    EXPECT_THROW(ops::permute_plan(*context, {.indices = indices, .offsets = offsets, .row_map = row_map}), Error);
  }
}

TEST(PermuteChecks, RefusesShapesThatClash) {
  const Tensors x({"", 6, 4, 2, 8});
  const TestTensor short_out(DType::f64, {11, 8});
  EXPECT_THROW(ops::permute_forward(*x.context, {.x = x.tokens, .row_map = x.row_map, .out = short_out}), Error);
  EXPECT_THROW(ops::permute_backward(*x.context, {.dout = short_out, .row_map = x.row_map, .dx = x.tokens}), Error);
  const TestTensor single(DType::f32, {12, 8});
  EXPECT_THROW(ops::permute_forward(*x.context, {.x = x.tokens, .row_map = x.row_map, .out = single}), Error);
  const TestTensor narrow(DType::f64, {6, 7});
  EXPECT_THROW(x.unpermute(x.tokens, narrow), Error);
}

}  // namespace
}  // namespace lathe::testing
