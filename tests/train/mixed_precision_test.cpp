// bf16 weights and activations on the guarded device: every op's checks accept the dtypes that the model asks for.
#include <gtest/gtest.h>

#include "core/json.h"
#include "device/guarded_device.h"
#include "train/optimizer.h"
#include "train/session.h"

namespace lathe::testing {
namespace {

struct Idle {
  template <typename Params>
  operator ops::Implementation<Params>() const {  // NOLINT: stands for any op
    return [](const ops::Context&, const Params&) {};
  }
};

const ops::Table& idle_table() {
  constexpr Idle idle;
  static const ops::Table table{idle, idle, idle, idle, idle, idle, idle, idle, idle, idle, idle, idle,
                                idle, idle, idle, idle, idle, idle, idle, idle, idle, idle, idle, idle};
  return table;
}

class MixedPrecision : public ::testing::TestWithParam<bool> {};

TEST_P(MixedPrecision, TheOpsTakeTheModelsDtypes) {
  ModelConfig config;
  config.vocab_size = 50;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 2;
  config.first_k_dense_replace = 1;
  config.kv_lora_rank = 8;
  config.q_lora_rank = GetParam() ? std::optional<std::int64_t>(6) : std::nullopt;
  config.qk_nope_head_dim = 8;
  config.qk_rope_head_dim = 4;
  config.v_head_dim = 8;
  config.attention_bias = true;
  config.mlp_bias = true;
  config.num_routed_experts = 4;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 8;
  config.softmax_scale = 0.3;
  const Runtime runtime{std::make_unique<GuardedDevice>(), &idle_table(), "", DType::bf16};
  Session session(runtime, config, {.gradients = true, .masters = true, .max_positions = 16});
  Optimizer optimizer({}, session.layout(), session.ops());
  Arena arena(session.device(), "sums");
  const TensorView sums = arena.take(DType::f64, {3});
  BalanceLoss balance;
  balance.scope = BalanceLoss::Scope::global_batch;
  balance.coef_over_tokens = 0.1;
  balance.accumulated = arena.take(DType::i64, {config.num_layers, config.num_routed_experts + 1});
  balance.loss = sums.slice(0, 1, 1);
  MicroBatchBuffer buffer(session, 16);
  const std::vector<std::int32_t> tokens(16, 5);
  session.model().forward_backward(buffer.fill(tokens, tokens, 2), 1.0, sums.slice(0, 0, 1), balance);
  const std::vector<std::int32_t> cu_seqlens{0, 5, 16};
  session.model().forward_backward(buffer.fill_packed(tokens, tokens, 2, cu_seqlens), 1.0, sums.slice(0, 0, 1),
                                   balance);
  optimizer.sum_of_squares(session.gradients(), sums.slice(0, 2, 1));
  optimizer.step(session.masters(), session.weights(), session.gradients(), 1.0, 1e-3);
  session.model().forward_loss(buffer.fill(tokens, tokens, 2), 1.0, sums.slice(0, 0, 1));

  const TensorView logits = arena.take(DType::f32, {16, config.vocab_size});
  session.model().forward_logits(buffer.fill(tokens, {}, 1), logits);
  const std::vector<LatentCache> caches = session.model().make_caches(arena, 16);
  const MicroBatch batch = buffer.fill(tokens, {}, 1);
  session.model().decode(batch.tokens, batch.positions, 0, caches, logits.slice(0, 0, 1));
}

INSTANTIATE_TEST_SUITE_P(QLora, MixedPrecision, ::testing::Bool());

}  // namespace
}  // namespace lathe::testing
