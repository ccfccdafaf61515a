// The hand-written backward of the whole model, balance loss included, against finite differences in fp64.
#include <cmath>

#include "core/philox.h"
#include "model/model_testing.h"
#include "ops/cross_entropy.h"

namespace lathe::testing {
namespace {

struct GradientCase {
  const char* name;
  bool q_lora;
  bool tied;
  bool normalize;
  bool grouped;
  bool packed;
  double coef;
  BalanceLoss::Scope scope;
};

std::ostream& operator<<(std::ostream& out, const GradientCase& c) { return out << c.name; }

constexpr GradientCase kCases[] = {
    {"plain", true, false, false, false, false, 0.0, BalanceLoss::Scope::micro_batch},
    {"micro_batch_balance", false, false, false, false, false, 0.3, BalanceLoss::Scope::micro_batch},
    {"sequence_balance", true, true, false, false, false, 0.3, BalanceLoss::Scope::sequence},
    {"global_balance_grouped", true, false, false, true, false, 0.3, BalanceLoss::Scope::global_batch},
    {"normalized_packed", false, true, true, false, true, 0.1, BalanceLoss::Scope::sequence},
};

class Gradient : public ::testing::TestWithParam<GradientCase> {};

TEST_P(Gradient, MatchesFiniteDifferences) {
  const GradientCase& c = GetParam();
  ModelConfig config = small_config();
  if (!c.q_lora) config.q_lora_rank.reset();
  config.tie_word_embeddings = c.tied;
  config.normalize_topk_prob = c.normalize;
  if (c.grouped) {
    config.topk_method = ops::TopkMethod::group_limited_greedy;
    config.num_groups = 3;
    config.topk_group = 2;
  }
  TestModel model(config, DType::f64);
  model.initialize(0.4, 7);
  double* weights = model.weights().as<double>();
  const Philox random(3);
  for (const NamedTensor& tensor : model.layout().named(model.weights()))  // norms and biases away from 1 and 0
    for (std::int64_t i = 0; i < tensor.view.numel(); ++i)
      tensor.view.as<double>()[i] += 0.1 * random.normal(static_cast<std::uint64_t>(i));

  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;
  for (std::uint64_t i = 0; i < 14; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(100 + i, 37)));
    targets.push_back(static_cast<std::int32_t>(random.below(200 + i, 37)));
  }
  targets[3] = targets[9] = ops::kIgnoreIndex;
  TestBatch batch(tokens, targets, 2);
  std::vector<std::int32_t> cu_seqlens = {0, 3, 7, 12, 14};
  if (c.packed) batch.batch.cu_seqlens = TestBatch::view(cu_seqlens);

  double losses[2];
  std::vector<std::int64_t> counts(static_cast<std::size_t>(config.num_layers * (config.num_routed_experts + 1)));
  BalanceLoss balance;
  balance.scope = c.scope;
  balance.coef_over_tokens = c.coef / 14.0;
  balance.loss = TensorView::contiguous(&losses[1], DType::f64, {1});
  balance.accumulated =
      TensorView::contiguous(counts.data(), DType::i64, {config.num_layers, config.num_routed_experts + 1});
  const auto loss = [&] {
    losses[0] = losses[1] = 0;
    std::fill(counts.begin(), counts.end(), 0);
    model.device().fill_zero(model.gradients(), {});
    model->forward_backward(batch.batch, 1.0 / 12.0, TensorView::contiguous(&losses[0], DType::f64, {1}), balance);
    return losses[0] + losses[1];
  };
  loss();
  ASSERT_EQ(losses[1] != 0, c.coef != 0);
  const std::vector<double> gradient(model.gradients().as<double>(),
                                     model.gradients().as<double>() + model.layout().size());

  int checked = 0;
  for (const ParameterLayout::Entry& entry : model.layout().entries()) {
    std::int64_t count = 1;
    for (const std::int64_t length : entry.shape) count *= length;
    for (std::int64_t i = 0; i < count; i += 1 + count / 6) {
      const std::int64_t at = entry.offset + i;
      const double saved = weights[at];
      const double step = 1e-5;
      weights[at] = saved + step;
      const double above = loss();
      weights[at] = saved - step;
      const double below = loss();
      weights[at] = saved;
      EXPECT_NEAR(gradient[static_cast<std::size_t>(at)], (above - below) / (2 * step), 1e-8) << entry.name << " " << i;
      ++checked;
    }
  }
  EXPECT_GT(checked, 150);
}

INSTANTIATE_TEST_SUITE_P(Whole, Gradient, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

// One sum over the global batch: however it is cut into micro-batches, gradients add up to the same.
TEST(MicroBatches, AddUpToTheWhole) {
  const ModelConfig config = small_config();
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;
  const Philox random(5);
  for (std::uint64_t i = 0; i < 4 * 9; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(i, 37)));
    targets.push_back(i % 5 == 4 ? ops::kIgnoreIndex : static_cast<std::int32_t>(random.below(1000 + i, 37)));
  }
  const auto run = [&](std::size_t pieces, std::vector<double>& gradient) {
    TestModel model(config, DType::f64);
    model.initialize(0.4, 7);
    double losses[2] = {0, 0};
    BalanceLoss balance;
    balance.scope = BalanceLoss::Scope::sequence;
    balance.coef_over_tokens = 0.2 / 36.0;
    balance.loss = TensorView::contiguous(&losses[1], DType::f64, {1});
    const std::size_t rows = tokens.size() / pieces;
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const auto cut = [&](const std::vector<std::int32_t>& all) {
        return std::vector<std::int32_t>(all.begin() + static_cast<std::ptrdiff_t>(piece * rows),
                                         all.begin() + static_cast<std::ptrdiff_t>((piece + 1) * rows));
      };
      TestBatch batch(cut(tokens), cut(targets), static_cast<std::int64_t>(4 / pieces));
      model->forward_backward(batch.batch, 1.0 / 29.0, TensorView::contiguous(&losses[0], DType::f64, {1}), balance);
    }
    gradient.assign(model.gradients().as<double>(), model.gradients().as<double>() + model.layout().size());
    return losses[0] + losses[1];
  };
  std::vector<double> whole;
  std::vector<double> pieces;
  EXPECT_NEAR(run(1, whole), run(4, pieces), 1e-13);
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(whole[i], pieces[i], 1e-13) << i;
}

}  // namespace
}  // namespace lathe::testing
