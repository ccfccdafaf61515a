#include "ops/mla_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cases/mla_attention_cases.h"
#include "ops/mla_attention_testing.h"

namespace lathe {
namespace {

using cases::MlaAttentionCase;
using testing::AttentionReference;
using testing::AttentionResults;
using testing::AttentionTensors;
using testing::AttentionValues;
using testing::CpuContext;
using testing::expect_as_reference;
using testing::expect_close;
using testing::TestTensor;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

class MlaAttentionTest : public ::testing::TestWithParam<MlaAttentionCase> {
 protected:
  CpuContext context_;
};

INSTANTIATE_TEST_SUITE_P(Cases, MlaAttentionTest, ::testing::ValuesIn(cases::mla_attention_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(MlaAttentionTest, AsTheReferenceInFp64) {
  const AttentionTensors tensors(GetParam(), DType::f64);
  tensors.run(*context_);
  expect_as_reference(tensors, 1e-13, 1e-13);
}

TEST_P(MlaAttentionTest, AsTheReferenceInFp32) {
  const AttentionTensors tensors(GetParam(), DType::f32);
  tensors.run(*context_);
  expect_as_reference(tensors, 2e-6, 2e-6);
}

// Results are rounded to 8 bits, and `out` was before it came back to the backward.
TEST_P(MlaAttentionTest, AsTheReferenceInBf16) {
  const AttentionTensors tensors(GetParam(), DType::bf16);
  tensors.run(*context_);
  expect_as_reference(tensors, 0x1p-8, 0.04);
}

TEST_P(MlaAttentionTest, SameBitsOnAnyThreads) {
  testing::expect_same_bits_on_any_threads([&] {
    const AttentionTensors t(GetParam(), DType::f32);
    t.run(*context_);
    return std::vector<TestTensor>{t.out, t.lse, t.dq, t.dkv, t.dk_pe};
  });
}

TEST(MlaAttention, GradientsAreFiniteDifferences) {
  CpuContext context;
  for (const bool causal : {true, false}) {
    const AttentionTensors t({"", 1, 5, 4, 2, 3, 2, 3, causal}, DType::f64);
    t.run(*context);
    const auto loss = [&] {
      ops::mla_attention_forward(*context, t.forward());
      double sum = testing::dot(t.out, t.dout);
      // lse of the query that sees no key is -inf and has no gradient.
      const std::vector<double> lse = t.lse.values();
      const std::vector<double> dlse = t.dlse.values();
      for (std::size_t i = 0; i < lse.size(); ++i)
        if (std::isfinite(lse[i])) sum += lse[i] * dlse[i];
      return sum;
    };
    const ops::MlaAttentionBackward op = t.backward();
    const AttentionResults results = t.results();
    EXPECT_TRUE(testing::is_close(results.dq_nope, testing::finite_differences(op.q_nope, loss), 1e-8, 1e-8));
    EXPECT_TRUE(testing::is_close(results.dq_pe, testing::finite_differences(op.q_pe, loss), 1e-8, 1e-8));
    EXPECT_TRUE(testing::is_close(results.dk_nope, testing::finite_differences(op.k_nope, loss), 1e-8, 1e-8));
    EXPECT_TRUE(testing::is_close(results.dk_pe, testing::finite_differences(op.k_pe, loss), 1e-8, 1e-8));
    EXPECT_TRUE(testing::is_close(results.dv, testing::finite_differences(op.v, loss), 1e-8, 1e-8));
  }
}

TEST(MlaAttention, WithoutDlseItCountsAsZero) {
  CpuContext context;
  AttentionTensors with({"", 1, 70, 70, 2, 8, 4, 8}, DType::f32);
  const AttentionTensors without = with;
  with.dlse.fill(0);
  with.run(*context);
  ops::mla_attention_forward(*context, without.forward());
  ops::MlaAttentionBackward op = without.backward();
  op.dlse = {};
  ops::mla_attention_backward(*context, op);
  EXPECT_TRUE(with.dq.same_bits(without.dq));
  EXPECT_TRUE(with.dkv.same_bits(without.dkv));
  EXPECT_TRUE(with.dk_pe.same_bits(without.dk_pe));
}

TEST(MlaAttention, AnyFiniteScale) {
  CpuContext context;
  for (const double scale : {0.0, -0.3, 40.0}) {
    AttentionTensors t({"", 1, 70, 70, 2, 8, 4, 8}, DType::f64);
    t.scale = scale;
    t.run(*context);
    expect_as_reference(t, 1e-11, 1e-11);
  }
}

// Query i of head 0 is (x, 0), every key (y, 0): all scores of a row are equal.
void expect_mean_of_values(double x, double y) {
  CpuContext context;
  AttentionTensors t({"", 1, 66, 66, 1, 2, 1, 3}, DType::f32);
  t.q.fill(0);
  t.kv.fill_normal(7);
  t.k_pe.fill(0);
  t.scale = 1;
  const ops::MlaAttentionForward op = t.forward();
  for (std::int64_t i = 0; i < 66; ++i) {
    op.q_nope.as<float>()[i * op.q_nope.strides[1]] = static_cast<float>(x);
    op.k_nope.as<float>()[i * op.k_nope.strides[1]] = static_cast<float>(y);
    op.k_nope.as<float>()[i * op.k_nope.strides[1] + 1] = 0;
  }
  t.run(*context);
  const AttentionReference reference(t.shape, t.scale, t.values());
  EXPECT_TRUE(testing::is_close(t.out, reference.results().out, 1e-6, 1e-6));
  // The gradient of the keys goes through scores times x: only lse and out are compared, and that nothing is NaN.
  EXPECT_TRUE(testing::is_close(t.lse, reference.results().lse, 1e-6, 1e-6));
  for (const double gradient : t.results().dv) EXPECT_TRUE(std::isfinite(gradient));
}

TEST(MlaAttention, ScoresOfAnySize) {
  expect_mean_of_values(0, 0);
  expect_mean_of_values(100, -100);
  expect_mean_of_values(1000, -1000);
  expect_mean_of_values(1e15, -1e15);
  expect_mean_of_values(1e15, 1e15);
  expect_mean_of_values(1e19, 1e19);
}

// Scores that are far apart: each row follows its largest, wherever among the tiles that is.
TEST(MlaAttention, OneKeyTakesAll) {
  CpuContext context;
  for (const std::int64_t winner : {0, 63, 64, 129}) {
    AttentionTensors t({"", 1, 3, 130, 1, 1, 1, 4, false}, DType::f32);
    t.q.fill(1);
    t.k_pe.fill(0);
    t.scale = 1;
    const ops::MlaAttentionForward op = t.forward();
    for (std::int64_t j = 0; j < 130; ++j)
      op.k_nope.as<float>()[j * op.k_nope.strides[1]] = j == winner ? -1e4F : -2e4F - static_cast<float>(j);
    ops::mla_attention_forward(*context, op);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(testing::values_of(op.out.slice(1, i, 1)), testing::values_of(op.v.slice(1, winner, 1)));
      EXPECT_EQ(t.lse.values()[static_cast<std::size_t>(i)], -1e4);
    }
  }
}

// Scores of -inf count as keys not seen: the first `hidden` of 130.
TEST(MlaAttention, ScoresOfMinusInfinity) {
  CpuContext context;
  for (const std::int64_t hidden : {64, 70, 130}) {
    AttentionTensors t({"", 1, 3, 130, 1, 1, 1, 4, false}, DType::f32);
    t.q.fill(1);
    t.k_pe.fill(0);
    const ops::MlaAttentionForward op = t.forward();
    for (std::int64_t j = 0; j < hidden; ++j)
      op.k_nope.as<float>()[j * op.k_nope.strides[1]] = -std::numeric_limits<float>::infinity();
    t.run(*context);
    const AttentionResults results = t.results();
    const ops::MlaAttentionBackward backward = t.backward();
    for (const double x : testing::values_of(backward.dv.slice(1, 0, hidden))) EXPECT_EQ(x, 0);
    if (hidden == 130) {
      EXPECT_EQ(results.out, std::vector<double>(12, 0.0));
      EXPECT_EQ(results.lse, std::vector<double>(3, -kInf));
      continue;
    }
    const AttentionReference reference(t.shape, t.scale, t.values());
    EXPECT_TRUE(testing::is_close(results.out, reference.results().out, 1e-6, 1e-6));
    EXPECT_TRUE(testing::is_close(results.lse, reference.results().lse, 1e-6, 1e-6));
    EXPECT_TRUE(testing::is_close(results.dv, reference.results().dv, 1e-6, 1e-6));
  }
}

TEST(MlaAttention, RowsThatSeeNoKeyAreZero) {
  CpuContext context;
  const AttentionTensors t({"", 1, 100, 30, 2, 8, 4, 8}, DType::f32);
  t.run(*context);
  for (const double x : testing::values_of(t.forward().out.slice(1, 0, 70))) EXPECT_EQ(x, 0);
  for (const double x : testing::values_of(t.lse.view().slice(2, 0, 70))) EXPECT_EQ(x, -kInf);
  for (const double x : testing::values_of(t.dq.view().slice(1, 0, 70))) EXPECT_EQ(x, 0);
  for (const double x : testing::values_of(t.dq.view().slice(1, 70, 30))) EXPECT_TRUE(std::isfinite(x));
}

// One bad element at a time, of every tensor: it spoils what depends on it and nothing else.
class MlaAttentionNonFiniteTest : public MlaAttentionTest {
 protected:
  void check(double bad, TensorView (*pick)(const ops::MlaAttentionBackward&), std::int64_t token) {
    for (const DType dtype : {DType::f64, DType::f32}) {
      const AttentionTensors t(GetParam(), dtype);
      const TensorView tensor = pick(t.backward()).slice(GetParam().packed() ? 0 : 1, token, 1);
      testing::store(tensor, 0, bad);
      t.run(*context_);
      const double bound = dtype == DType::f64 ? 1e-12 : 1e-5;
      expect_as_reference(t, bound, bound);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Cases, MlaAttentionNonFiniteTest,
                         ::testing::Values(MlaAttentionCase{"Causal", 1, 150, 150, 2, 8, 4, 12},
                                           MlaAttentionCase{"MoreQueries", 1, 150, 70, 2, 8, 4, 12},
                                           cases::packed_case("Packed", {70, 80}, {70, 80}, 2, 8, 4, 12)),
                         [](const auto& test) { return test.param.name; });

TEST_P(MlaAttentionNonFiniteTest, SpoilsOnlyWhatDependsOnIt) {
  for (const std::int64_t token : {3, 64, 69}) {
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.q_nope; }, token);
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.q_pe; }, token);
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.k_nope; }, token);
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.k_pe; }, token);
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.v; }, token);
    check(
        kNan, [](const ops::MlaAttentionBackward& op) { return op.dout; }, token);
    check(
        kInf, [](const ops::MlaAttentionBackward& op) { return op.v; }, token);
    check(
        -kInf, [](const ops::MlaAttentionBackward& op) { return op.dout; }, token);
  }
}

// Decoding with the latent as key and value of all heads: the head stride is 0.
TEST(MlaAttention, HeadsMayShareKeysAndValues) {
  CpuContext context;
  for (const MlaAttentionCase& shape :
       {MlaAttentionCase{"Decode", 2, 1, 150, 5, 24, 8, 24}, MlaAttentionCase{"Chunk", 1, 70, 150, 5, 24, 8, 24}}) {
    const AttentionTensors t(shape, DType::f32);
    ops::MlaAttentionForward op = t.forward();
    op.k_nope.strides[2] = 0;
    op.v = op.k_nope;
    ops::mla_attention_forward(*context, op);
    AttentionValues values = t.values();
    values.k_nope = testing::values_of(op.k_nope);
    values.v = testing::values_of(op.v);
    const AttentionReference reference(shape, t.scale, values);
    EXPECT_TRUE(testing::is_close(t.out, reference.results().out, 2e-6, 2e-6)) << shape.name;
    EXPECT_TRUE(testing::is_close(t.lse, reference.results().lse, 2e-6, 2e-6)) << shape.name;
  }
}

// The backward reads through strides of 0 as well; its gradients have memory of their own.
TEST(MlaAttention, BackwardReadsSharedInputs) {
  CpuContext context;
  const AttentionTensors t({"", 2, 70, 70, 3, 8, 4, 8}, DType::f64);
  ops::MlaAttentionForward forward = t.forward();
  ops::MlaAttentionBackward backward = t.backward();
  forward.k_nope.strides[2] = backward.k_nope.strides[2] = 0;
  forward.v.strides[2] = backward.v.strides[2] = 0;
  backward.dout.strides[0] = 0;
  ops::mla_attention_forward(*context, forward);
  ops::mla_attention_backward(*context, backward);
  AttentionValues values = t.values();
  values.k_nope = testing::values_of(backward.k_nope);
  values.v = testing::values_of(backward.v);
  values.dout = testing::values_of(backward.dout);
  expect_close(t.results(), AttentionReference(t.shape, t.scale, values).results(), 1e-12, 1e-12);
}

// A score matrix of 4096 x 4096 would take 64 MiB for each head.
TEST(MlaAttention, MemoryDoesNotGrowWithTheSquare) {
  CpuContext context;
  const AttentionTensors t({"", 1, 4096, 4096, 1, 4, 2, 4}, DType::f32);
  t.run(*context);
  EXPECT_LE(context->scratch->high_water_bytes(), std::size_t{16} << 20);
  EXPECT_TRUE(std::isfinite(t.results().dk_pe.back()));
}

template <typename Change>
std::string forward_message(const AttentionTensors& tensors, Change&& change) {
  CpuContext context;
  ops::MlaAttentionForward op = tensors.forward();
  change(op);
  try {
    ops::mla_attention_forward(*context, op);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(MlaAttention, RefusesWhatDoesNotFit) {
  using Op = ops::MlaAttentionForward;
  const AttentionTensors t({"", 2, 4, 6, 3, 8, 4, 10}, DType::f32);
  const auto has = [&](auto&& change, const std::string& text) {
    const std::string message = forward_message(t, change);
    EXPECT_NE(message.find(text), std::string::npos) << "'" << message << "' without '" << text << "'";
  };
  EXPECT_EQ(forward_message(t, [](Op&) {}), "");
  has([](Op& op) { op.q_pe = op.q_pe.slice(1, 0, 3); }, "q_pe is f32 [2, 3, 3, 4]");
  has([](Op& op) { op.k_nope = op.k_nope.slice(3, 0, 7); }, "[2, 6, 3, 8]");
  has([](Op& op) { op.k_pe = op.k_pe.slice(1, 1, 5); }, "k_pe is f32 [2, 5, 1, 4]");
  has([](Op& op) { op.v = op.v.slice(2, 0, 2); }, "v is f32 [2, 6, 2, 10]");
  has([](Op& op) { op.out.dtype = DType::bf16; }, "o is bf16");
  has([](Op& op) { op.lse = op.lse.slice(2, 0, 3); }, "[2, 3, 4]");
  has([](Op& op) { op.q_nope = op.q_nope.select(0, 0); }, "q_nope is f32 [4, 3, 8]");
  has([](Op& op) { op.out.strides[2] = 0; }, "o is written, but");
  has([](Op& op) { op.q_nope.strides[3] = 2; }, "contiguous last dimension");
  has([](Op& op) { op.softmax_scale = kNan; }, "softmax_scale is nan");
  has([](Op& op) { op.softmax_scale = -kInf; }, "softmax_scale is -inf");
}

TEST(MlaAttention, RefusesBadSequences) {
  using Op = ops::MlaAttentionForward;
  AttentionTensors t(cases::packed_case("", {2, 3, 1}, {2, 3, 1}, 2, 8, 4, 8), DType::f32);
  EXPECT_EQ(forward_message(t, [](Op&) {}), "");
  EXPECT_NE(forward_message(t, [](Op& op) { op.cu_seqlens_k = {}; }).find("without cu_seqlens_k"), std::string::npos);
  EXPECT_NE(forward_message(t, [](Op& op) { op.cu_seqlens_q = op.cu_seqlens_q.slice(0, 0, 3); }).find("ends with 5"),
            std::string::npos);
  t.cu_q.set({0, 3, 2, 6});
  EXPECT_NE(forward_message(t, [](Op&) {}).find("falls from 3 to 2 at index 2"), std::string::npos);
  t.cu_q.set({1, 2, 5, 6});
  EXPECT_NE(forward_message(t, [](Op&) {}).find("begins with 1"), std::string::npos);
}

}  // namespace
}  // namespace lathe
