// Generation with the latent cache gives the logits of the plain forward.
#include <cmath>

#include "core/philox.h"
#include "model/model_testing.h"

namespace lathe::testing {
namespace {

TEST(Decode, EqualsTheForward) {
  for (const bool q_lora : {true, false}) {
    ModelConfig config = small_config();
    if (!q_lora) config.q_lora_rank.reset();
    TestModel model(config, DType::f64);
    model.initialize(0.4, 11);
    const Philox random(9);
    std::vector<std::int32_t> tokens;
    for (std::uint64_t i = 0; i < 11; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(i, 37)));
    TestBatch whole(tokens, tokens, 1);
    std::vector<double> expected(11 * 37, NAN);
    model->forward_logits(whole.batch, TensorView::contiguous(expected.data(), DType::f64, {11, 37}));

    Arena cache_memory(model.device(), "cache");
    const std::vector<LatentCache> caches = model->make_caches(cache_memory, 11);
    std::int64_t length = 0;
    for (const std::int64_t rows : {4, 1, 1, 3, 1, 1}) {  // a prompt, single tokens, several at once
      const TensorView part = whole.batch.tokens.slice(0, length, rows);
      std::vector<double> logits(37, NAN);
      model->decode(part, whole.batch.positions.slice(0, length, rows), length, caches,
                    TensorView::contiguous(logits.data(), DType::f64, {1, 37}));
      length += rows;
      for (std::size_t i = 0; i < logits.size(); ++i)
        ASSERT_NEAR(logits[i], expected[static_cast<std::size_t>(length - 1) * 37 + i], 1e-12) << length << " " << i;
    }
    ASSERT_EQ(length, 11);
  }
}

}  // namespace
}  // namespace lathe::testing
