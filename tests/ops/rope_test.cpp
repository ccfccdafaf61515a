#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cases/rope_cases.h"
#include "ops/op_testing.h"

namespace lathe {
namespace {

using cases::RopeCase;
using testing::CpuContext;
using testing::TestTensor;

struct Tensors {
  explicit Tensors(const RopeCase& shape, DType dtype)
      : x(dtype, {shape.tokens, shape.heads, shape.d}, 3),
        out(dtype, {shape.tokens, shape.heads, shape.d}, 5),
        positions(DType::i32, {shape.tokens}),
        cos(DType::f32, {shape.positions, shape.d / 2}, 1),
        sin(DType::f32, {shape.positions, shape.d / 2}, 1) {
    x.fill_normal(1);
    positions.fill_below(2, shape.positions);
    cos.fill_normal(3);
    sin.fill_normal(4);
  }
  ops::Rope op(bool transpose) { return {x.view(), out.view(), positions.view(), cos.view(), sin.view(), transpose}; }

  TestTensor x, out, positions, cos, sin;
};

// Each pair as a complex number times (cos, sin), or times its conjugate.
std::vector<double> expected(const Tensors& t, const RopeCase& shape, bool transpose) {
  std::vector<double> x = t.x.values();
  const std::vector<double> cos = t.cos.values();
  const std::vector<double> sin = t.sin.values();
  const std::vector<double> positions = t.positions.values();
  const std::int64_t half = shape.d / 2;
  for (std::int64_t token = 0; token < shape.tokens; ++token)
    for (std::int64_t head = 0; head < shape.heads; ++head)
      for (std::int64_t i = 0; i < half; ++i) {
        const auto pair = static_cast<std::size_t>(((token * shape.heads + head) * half + i) * 2);
        const auto angle =
            static_cast<std::size_t>(static_cast<std::int64_t>(positions[static_cast<std::size_t>(token)]) * half + i);
        const double s = transpose ? -sin[angle] : sin[angle];
        const double even = x[pair];
        x[pair] = even * cos[angle] - x[pair + 1] * s;
        x[pair + 1] = even * s + x[pair + 1] * cos[angle];
      }
  return x;
}

class RopeTest : public ::testing::TestWithParam<RopeCase> {
 protected:
  CpuContext context_;
};

INSTANTIATE_TEST_SUITE_P(Cases, RopeTest, ::testing::ValuesIn(cases::rope_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(RopeTest, TurnsEveryPairBothWays) {
  for (const bool transpose : {false, true}) {
    Tensors wide(GetParam(), DType::f64);
    ops::rope(*context_, wide.op(transpose));
    EXPECT_TRUE(testing::is_close(wide.out, expected(wide, GetParam(), transpose), 1e-15, 1e-14));
    Tensors narrow(GetParam(), DType::f32);
    ops::rope(*context_, narrow.op(transpose));
    EXPECT_TRUE(testing::is_close(narrow.out, expected(narrow, GetParam(), transpose), 1e-6, 1e-6));
  }
}

TEST_P(RopeTest, InPlaceGivesTheSameBits) {
  Tensors apart(GetParam(), DType::f32);
  Tensors in_place(GetParam(), DType::f32);
  ops::rope(*context_, apart.op(false));
  ops::Rope op = in_place.op(false);
  op.out = op.x;
  ops::rope(*context_, op);
  EXPECT_EQ(in_place.x.values(), apart.out.values());
  EXPECT_TRUE(in_place.x.padding_is_intact());
}

TEST_P(RopeTest, SameBitsOnAnyThreads) {
  testing::expect_same_bits_on_any_threads([&] {
    Tensors tensors(GetParam(), DType::f32);
    ops::rope(*context_, tensors.op(false));
    return std::vector<TestTensor>{tensors.out};
  });
}

TEST(Rope, RefusesWhatDoesNotFit) {
  CpuContext context;
  Tensors tensors({"", 4, 2, 8, 6}, DType::f32);
  const auto message = [&](auto&& change) -> std::string {
    ops::Rope op = tensors.op(false);
    change(op);
    try {
      ops::rope(*context, op);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([](ops::Rope&) {}), "");
  EXPECT_NE(message([](ops::Rope& op) { op.x = op.x.slice(2, 0, 7); }).find("[4, 2, 7]"), std::string::npos);
  EXPECT_NE(message([](ops::Rope& op) { op.out = op.out.slice(1, 0, 1); }).find("[4, 1, 8]"), std::string::npos);
  EXPECT_NE(message([](ops::Rope& op) { op.cos = op.cos.slice(0, 0, 5); }).find("[6, 4]"), std::string::npos);
  EXPECT_NE(message([](ops::Rope& op) { op.sin = op.sin.slice(1, 0, 3); }).find("[6, 3]"), std::string::npos);
  tensors.positions.set({0, 1, 6, 2});
  EXPECT_NE(message([](ops::Rope&) {}).find("position 6 of row 2 is outside [0, 6)"), std::string::npos);
  tensors.positions.set({0, 1, -1, 2});
  EXPECT_NE(message([](ops::Rope&) {}).find("position -1 of row 2"), std::string::npos);
}

}  // namespace
}  // namespace lathe
