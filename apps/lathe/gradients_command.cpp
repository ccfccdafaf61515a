#include <deque>
#include <vector>

#include "lathe/commands.h"
#include "lathe/model_folder.h"
#include "lathe/output_file.h"
#include "train/host_copy.h"

namespace lathe {
namespace {

// The mean cross-entropy of tokens 2, 3, ... each given those before it, with gradients.
double loss_and_gradients(Session& session, std::span<const std::int32_t> tokens) {
  const auto targets = static_cast<std::int64_t>(tokens.size()) - 1;
  MicroBatchBuffer buffer(session, targets);
  const MicroBatch batch = buffer.fill(tokens.first(tokens.size() - 1), tokens.subspan(1), 1);
  Arena memory(session.device(), "losses");
  const TensorView losses = memory.take(DType::f64, {2});
  session.device().fill_zero(losses, session.ops().stream);
  BalanceLoss no_balance;
  no_balance.loss = losses.slice(0, 1, 1);
  const TensorView loss = losses.slice(0, 0, 1);
  session.model().forward_backward(batch, 1.0 / static_cast<double>(targets), loss, no_balance);
  return read_scalar(session.device(), session.ops().stream, loss);
}

}  // namespace

int run_gradients(const GradientsOptions& options) {
  const OpenModel model = open_model(options.checkpoint);
  require_tokens_below(options.tokens, model.config.vocab_size, "--tokens");
  require_output_file(options.out);

  const auto length = static_cast<std::int64_t>(options.tokens.size());
  const Runtime runtime = make_runtime(options.device);
  const auto session = load_model(model, runtime, {.gradients = true, .max_positions = length});
  auto loss = static_cast<float>(loss_and_gradients(*session, options.tokens));
  std::vector<NamedTensor> tensors{{"loss", TensorView::contiguous(&loss, DType::f32, {1})}};
  std::deque<HostCopy> copies;
  for (const NamedTensor& gradient : session->layout().named(session->gradients()))
    tensors.push_back(
        {gradient.name, copies.emplace_back(session->device(), session->ops().stream, gradient.view).view()});
  write_tensors(options.out, tensors);
  return 0;
}

}  // namespace lathe
