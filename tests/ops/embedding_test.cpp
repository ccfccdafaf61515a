#include "ops/embedding.h"

#include "cases/embedding_cases.h"
#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

class Embedding : public ::testing::TestWithParam<cases::EmbeddingCase> {};

TestTensor tokens_of(const cases::EmbeddingCase& c) {
  TestTensor tokens(DType::i32, {c.tokens});
  tokens.fill_below(1, c.vocab);
  return tokens;
}

TestTensor forward(const cases::EmbeddingCase& c, DType dtype) {
  CpuContext context;
  TestTensor table(dtype, {c.vocab, c.hidden}, c.padding);
  TestTensor out(dtype, {c.tokens, c.hidden}, c.padding);
  table.fill_normal(2);
  ops::embedding_forward(*context, {.tokens = tokens_of(c), .table = table, .out = out});
  return out;
}

TestTensor backward(const cases::EmbeddingCase& c, DType dtype, std::int64_t padding_idx) {
  CpuContext context;
  TestTensor dout(dtype, {c.tokens, c.hidden}, c.padding);
  TestTensor dtable(dtype, {c.vocab, c.hidden}, c.padding);
  dout.fill_normal(3);
  dtable.fill_normal(4);
  ops::embedding_backward(*context,
                          {.tokens = tokens_of(c), .dout = dout, .dtable = dtable, .padding_idx = padding_idx});
  return dtable;
}

TEST_P(Embedding, ForwardCopiesRows) {
  const cases::EmbeddingCase& c = GetParam();
  TestTensor table(DType::f32, {c.vocab, c.hidden});
  table.fill_normal(2);
  const std::vector<double> rows = table.values();
  std::vector<double> expected;
  for (const double token : tokens_of(c).values()) {
    const auto begin = rows.begin() + static_cast<std::int64_t>(token) * c.hidden;
    expected.insert(expected.end(), begin, begin + c.hidden);
  }
  EXPECT_TRUE(is_close(forward(c, DType::f32), expected, 0, 0));
  EXPECT_TRUE(is_close(forward(c, DType::f64), expected, 0, 0));
}

TEST_P(Embedding, BackwardAddsRowsInPlace) {
  const cases::EmbeddingCase& c = GetParam();
  for (const std::int64_t padding_idx : {std::int64_t{-1}, c.vocab - 1}) {
    TestTensor dtable(DType::f64, {c.vocab, c.hidden});
    TestTensor dout(DType::f64, {c.tokens, c.hidden});
    dtable.fill_normal(4);
    dout.fill_normal(3);
    std::vector<double> expected = dtable.values();
    const std::vector<double> gradient = dout.values();
    const std::vector<double> tokens = tokens_of(c).values();
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      if (static_cast<std::int64_t>(tokens[t]) == padding_idx) continue;
      for (std::int64_t j = 0; j < c.hidden; ++j)
        expected[static_cast<std::size_t>(static_cast<std::int64_t>(tokens[t]) * c.hidden + j)] +=
            gradient[t * static_cast<std::size_t>(c.hidden) + static_cast<std::size_t>(j)];
    }
    EXPECT_TRUE(is_close(backward(c, DType::f64, padding_idx), expected, 1e-14, 1e-14));
    EXPECT_TRUE(is_close(backward(c, DType::f32, padding_idx), expected, 1e-6, 2e-5));
  }
}

TEST_P(Embedding, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads([&] {
    return std::vector{forward(GetParam(), DType::f32), backward(GetParam(), DType::f32, 0)};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Embedding, ::testing::ValuesIn(cases::embedding_cases()),
                         [](const auto& each) { return each.param.name; });

TEST(EmbeddingInput, TokenOutsideTheTableIsNamed) {
  CpuContext context;
  TestTensor tokens(DType::i32, {3});
  TestTensor table(DType::f32, {5, 2});
  TestTensor out(DType::f32, {3, 2});
  table.fill(1);
  for (const double wrong : {5.0, -1.0}) {
    tokens.set({0, wrong, 4});
    try {
      ops::embedding_forward(*context, {.tokens = tokens, .table = table, .out = out});
      FAIL() << "accepted " << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()),
                fmt::format("embedding_forward: token 1 is {}, expected [0, 5)", static_cast<int>(wrong)));
    }
    EXPECT_THROW(ops::embedding_backward(*context, {.tokens = tokens, .dout = out, .dtable = table}), Error);
  }
}

}  // namespace
}  // namespace lathe::testing
