// The plan against what a step takes.
#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include <vector>

#include "backends/register.h"
#include "device/cpu_device.h"
#include "train/session.h"

namespace lathe {
namespace {

TEST(MemoryPlan, ActivationsAreWithinATenthOfTheHighWaterMark) {
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
  Runtime runtime{.device = make_cpu_device(), .table = &op_table(DeviceKind::cpu), .reason = "", .dtype = DType::f32};
  Session session(runtime, config, {.gradients = true, .max_positions = 512});
  initialize_parameters(config, session.layout(), session.weights(), 0.02, 1);
  MicroBatchBuffer buffer(session, 4096);
  const std::vector<std::int32_t> tokens(4096, 7);
  double loss = 0;
  session.model().forward_backward(buffer.fill(tokens, tokens, 8), 1.0, TensorView::contiguous(&loss, DType::f64, {1}),
                                   BalanceLoss{});

  const MemoryPlan plan = plan_memory(config, session.layout(), DType::f32, 4096);
  ASSERT_EQ(plan.categories.back().name, "activations");
  const auto planned = static_cast<double>(plan.categories.back().bytes);
  const auto taken = static_cast<double>(session.activations().high_water_bytes());
  EXPECT_NEAR(planned / taken, 1.0, 0.1) << planned << " planned, " << taken << " taken";
}

}  // namespace
}  // namespace lathe
