// Logits, loss and every gradient against transformers' own (scripts/make_model_goldens.py wrote the folders).
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "checkpoint/tensor_folder.h"
#include "model/model_testing.h"
#include "ops/cross_entropy.h"

namespace lathe::testing {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(LATHE_GOLDEN_DIR) / "models"))
    if (entry.is_directory()) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::vector<float> read_floats(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* tensor = file.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  std::int64_t count = 1;
  for (const std::int64_t length : tensor->shape) count *= length;
  std::vector<float> values(static_cast<std::size_t>(count));
  file.read_into(*tensor, TensorView::contiguous(values.data(), DType::f32, tensor->shape));
  return values;
}

// The largest difference, as a share of the largest value where that is above 1.
void expect_close(const float* found, const std::vector<float>& expected, const std::string& what) {
  double worst = 0;
  double scale = 1;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what << " [" << i << "]";
    worst = std::max(worst, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  EXPECT_LE(worst, 1e-4 * scale) << what;
}

class Parity : public ::testing::TestWithParam<fs::path> {};

TEST_P(Parity, LogitsLossAndGradientsAreTransformers) {
  const fs::path& folder = GetParam();
  const ModelConfig config = read_model_config(folder);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const StoredTensor* stored = golden.find("tokens");
  ASSERT_NE(stored, nullptr);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(stored->shape[0]));
  if (stored->readable_dtype() == DType::i64) {
    std::vector<std::int64_t> wide(tokens.size());
    golden.read_into(*stored, TensorView::contiguous(wide.data(), DType::i64, stored->shape));
    std::transform(wide.begin(), wide.end(), tokens.begin(), [](auto id) { return static_cast<std::int32_t>(id); });
  } else {
    golden.read_into(*stored, TestBatch::view(tokens));
  }

  TestModel model(config, DType::f32, stored->shape[0]);
  const TensorFolder tensors(folder);
  std::size_t parameters = 0;
  for (const NamedTensor& tensor : model.layout().named(model.weights())) {
    tensors.read_into(tensor.name, tensor.view);
    ++parameters;
  }
  ASSERT_GT(parameters, 10U);

  std::vector<std::int32_t> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(ops::kIgnoreIndex);
  const double scale = 1.0 / static_cast<double>(tokens.size() - 1);
  TestBatch batch(tokens, targets, 1);

  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(config.vocab_size), NAN);
  model->forward_logits(batch.batch,
                        TensorView::contiguous(logits.data(), DType::f32, {stored->shape[0], config.vocab_size}));
  expect_close(logits.data(), read_floats(golden, "logits"), "logits");

  double loss = 0;
  model->forward_backward(batch.batch, scale, TensorView::contiguous(&loss, DType::f64, {1}), BalanceLoss{});
  EXPECT_NEAR(loss, static_cast<double>(read_floats(golden, "loss")[0]), 1e-4);
  for (const NamedTensor& gradient : model.layout().named(model.gradients()))
    expect_close(gradient.view.as<float>(), read_floats(golden, "grad." + gradient.name), gradient.name);

  double loss_again = 0;
  model->forward_loss(batch.batch, scale, TensorView::contiguous(&loss_again, DType::f64, {1}));
  EXPECT_EQ(loss, loss_again);
}

INSTANTIATE_TEST_SUITE_P(Golden, Parity, ::testing::ValuesIn(golden_folders()),
                         [](const auto& test) { return test.param.filename().string(); });

}  // namespace
}  // namespace lathe::testing
