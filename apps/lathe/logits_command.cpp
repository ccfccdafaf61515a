#include <array>

#include "checkpoint/safetensors.h"
#include "core/file.h"
#include "lathe/commands.h"
#include "lathe/runtime.h"
#include "ops/cross_entropy.h"
#include "train/host_copy.h"

namespace lathe {
namespace {

// The model of `checkpoint` with all that is wrong with the tokens or the output's place found first.
LoadedModel load_for_tokens(const std::filesystem::path& checkpoint, const std::vector<std::int32_t>& tokens,
                            const std::filesystem::path& out, LoadOptions options) {
  const OpenedModel opened = open_model(checkpoint);
  require_tokens_in_vocabulary(tokens, opened.config);
  require_writable_file(out);
  options.max_positions = static_cast<std::int64_t>(tokens.size());
  return load_model(opened, options);
}

void write_output(const std::filesystem::path& out, std::span<const NamedTensor> tensors) {
  std::filesystem::create_directories(std::filesystem::absolute(out).parent_path());
  write_safetensors(out, tensors);
}

}  // namespace

int run_logits(const LogitsOptions& options) {
  LoadedModel model = load_for_tokens(options.checkpoint, options.tokens, options.out, {.device = options.device});
  Session& session = *model.session;
  const auto rows = static_cast<std::int64_t>(options.tokens.size());
  const std::int64_t vocab = session.config().vocab_size;
  MicroBatchBuffer buffer(session, rows);
  Arena arena(session.device(), "logits");
  const TensorView logits = arena.take(DType::f32, {rows, vocab});
  session.model().forward_logits(buffer.fill(options.tokens, {}, 1), logits);
  const HostCopy host(session.device(), session.ops().stream, logits);
  write_output(options.out, std::array{NamedTensor{"logits", host.view()}});
  return 0;
}

int run_gradients(const GradientsOptions& options) {
  LoadedModel model =
      load_for_tokens(options.checkpoint, options.tokens, options.out, {.device = options.device, .gradients = true});
  Session& session = *model.session;
  MicroBatchBuffer buffer(session, static_cast<std::int64_t>(options.tokens.size()));
  Arena arena(session.device(), "loss");
  const TensorView loss = arena.take(DType::f64, {1});
  session.device().fill_zero(loss, session.ops().stream);
  std::vector<std::int32_t> targets(options.tokens.begin() + 1, options.tokens.end());
  const double scale = 1.0 / static_cast<double>(targets.size());
  targets.push_back(ops::kIgnoreIndex);
  session.model().forward_backward(buffer.fill(options.tokens, targets, 1), scale, loss, BalanceLoss{});

  auto value = static_cast<float>(read_scalar(session.device(), session.ops().stream, loss));
  const HostCopy gradients(session.device(), session.ops().stream, session.gradients());
  std::vector<NamedTensor> tensors = {{"loss", TensorView::contiguous(&value, DType::f32, {1})}};
  for (const NamedTensor& tensor : session.layout().named(gradients.view())) tensors.push_back(tensor);
  write_output(options.out, tensors);
  return 0;
}

}  // namespace lathe
