// The plan against what a step takes.
#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "backends/register.h"
#include "device/cpu_device.h"
#include "model/model.h"
#include "train/optimizer.h"
#include "train/session.h"

namespace lathe {
namespace {

ModelConfig small_model() {
  ModelConfig config;
  config.vocab_size = 300;
  config.hidden_size = 128;
  config.intermediate_size = 384;
  config.num_layers = 4;
  config.num_heads = 4;
  config.first_k_dense_replace = 1;
  config.q_lora_rank.reset();
  config.kv_lora_rank = 64;
  config.qk_nope_head_dim = 32;
  config.qk_rope_head_dim = 16;
  config.v_head_dim = 32;
  config.num_routed_experts = 8;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 64;
  config.softmax_scale = 0.15;
  return config;
}

struct PlanCase {
  const char* name;
  void (*change)(ModelConfig&);
  std::int64_t sequence_length, micro_batch_size, micro_batches;
};

std::ostream& operator<<(std::ostream& out, const PlanCase& c) { return out << c.name; }

const PlanCase kCases[] = {
    {"moe", [](ModelConfig&) {}, 512, 8, 1},
    {"dense_with_q_lora",
     [](ModelConfig& config) {
       config.first_k_dense_replace = 4;
       config.q_lora_rank = 96;
     },
     256, 4, 3},
    {"large_vocabulary", [](ModelConfig& config) { config.vocab_size = 32000; }, 1024, 1, 2},
    {"many_experts_tied",
     [](ModelConfig& config) {
       config.num_routed_experts = 64;
       config.num_experts_per_tok = 6;
       config.tie_word_embeddings = true;
     },
     512, 1, 1},
};

class MemoryPlanTest : public ::testing::TestWithParam<PlanCase> {};

TEST_P(MemoryPlanTest, IsWithinATenthOfWhatAStepTakes) {
  const PlanCase& c = GetParam();
  ModelConfig config = small_model();
  c.change(config);
  const Runtime runtime{make_cpu_device(), &op_table(DeviceKind::cpu), "", DType::f32};
  Session session(runtime, config, {.gradients = true, .masters = true, .max_positions = c.sequence_length});
  session.fill_weights([&](const std::string& name, const TensorView& host) {
    initialize_parameter(config, {name, host}, 0.02, 1);
  });
  Optimizer optimizer({}, session.layout(), session.ops());
  const std::int64_t rows = c.sequence_length * c.micro_batch_size;
  std::vector<MicroBatchBuffer> buffers;
  for (std::int64_t i = 0; i < c.micro_batches; ++i) buffers.emplace_back(session, rows);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 7 % 290);
  double loss = 0;
  for (MicroBatchBuffer& buffer : buffers)
    session.model().forward_backward(buffer.fill(tokens, tokens, c.micro_batch_size), 1.0,
                                     TensorView::contiguous(&loss, DType::f64, {1}), BalanceLoss{});
  optimizer.step(session.masters(), session.weights(), session.gradients(), 1.0, 1e-3);

  const MemoryPlan plan = plan_memory(
      config, session.layout(),
      {.sequence_length = c.sequence_length, .micro_batch_size = c.micro_batch_size, .micro_batches = c.micro_batches});
  session.describe_memory();
  std::map<std::string, double> taken;
  double total = 0;
  for (const MemoryLedger::Entry& entry : session.device().memory().entries()) {
    taken[entry.name] = static_cast<double>(entry.bytes);
    total += static_cast<double>(entry.bytes);
  }
  ASSERT_EQ(plan.categories.size(), taken.size());
  for (const MemoryPlan::Category& category : plan.categories) {
    const auto planned = static_cast<double>(category.bytes);
    // Scratch also holds what depends on the threads: a tenth of the whole there.
    const double allowed = category.name == "scratch" ? 0.1 * total : 0.1 * taken.at(category.name);
    EXPECT_NEAR(planned, taken.at(category.name), allowed) << category.name;
  }
  EXPECT_NEAR(static_cast<double>(plan.total()) / total, 1.0, 0.1) << plan.describe();
}

INSTANTIATE_TEST_SUITE_P(Configs, MemoryPlanTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(MemoryPlan, LogitsOfAGpuAreFewEvenChunksOfAbout2GiB) {
  const auto rows = [](std::int64_t vocab_size, std::int64_t count) {
    return head_chunk_rows(vocab_size, count, DeviceKind::cuda);
  };
  EXPECT_EQ(rows(102400, 8192), 4096);
  EXPECT_EQ(rows(102400, 2048), 2048);
  EXPECT_EQ(rows(102400, 5300), 2688);  // two chunks, the first in whole tiles of a product
  EXPECT_EQ(rows(258, 8192), 8192);
  EXPECT_EQ(rows(std::int64_t{1} << 30, 1000), 128);
  EXPECT_EQ(rows(102400, 0), 0);
  EXPECT_EQ(head_chunk_rows(102400, 8192, DeviceKind::cpu), 655);
  EXPECT_EQ(head_chunk_rows(258, 8192, DeviceKind::cpu), 1024);
  EXPECT_EQ(head_chunk_rows(258, 7, DeviceKind::cpu), 7);
}

// bf16 halves weights and most activations, and adds masters.
TEST(MemoryPlan, OfBf16) {
  const ModelConfig config = small_model();
  const ParameterLayout layout(config);
  TrainingShape shape{.sequence_length = 512, .micro_batch_size = 8, .micro_batches = 1};
  const MemoryPlan fp32 = plan_memory(config, layout, shape);
  shape.dtype = DType::bf16;
  const MemoryPlan bf16 = plan_memory(config, layout, shape);
  EXPECT_EQ(bf16.categories[0].bytes * 2, fp32.categories[0].bytes);
  EXPECT_EQ(bf16.categories[1].name, "masters");
  EXPECT_EQ(bf16.categories[1].bytes, layout.size() * 4);
  ASSERT_EQ(bf16.categories[4].name, "activations");
  ASSERT_EQ(fp32.categories[3].name, "activations");
  EXPECT_GT(bf16.categories[4].bytes * 2, fp32.categories[3].bytes);
  EXPECT_LT(bf16.categories[4].bytes, fp32.categories[3].bytes * 6 / 10);
}

}  // namespace
}  // namespace lathe
