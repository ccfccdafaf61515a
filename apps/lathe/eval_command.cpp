#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "core/log.h"
#include "data/sampler.h"
#include "lathe/commands.h"
#include "lathe/runtime.h"
#include "train/evaluate.h"
#include "train/run_config.h"
#include "train/run_state.h"

namespace lathe {
namespace {

constexpr std::int64_t kMaxSequenceLength = 2048;  // unless asked for
constexpr std::int64_t kTokensAtATime = 8192;

// As asked for, else as the run that wrote the checkpoint trained, so that its validation losses compare.
EvaluationOptions evaluation_options(const EvalOptions& options, const OpenedModel& opened) {
  EvaluationOptions evaluation;
  evaluation.samples = options.samples == 0 ? std::numeric_limits<std::int64_t>::max() : options.samples;
  evaluation.sequence_length = options.sequence_length;
  if (has_run_state(opened.folder)) {
    const std::string toml = read_run_state(opened.folder).toml;
    const auto saved = [&](std::string_view key) { return saved_setting(toml, key).value_or(""); };
    evaluation.reset_attention_mask = saved("training.reset_attention_mask") == "true";
    if (evaluation.sequence_length == 0)
      evaluation.sequence_length = std::strtoll(saved("training.sequence_length").c_str(), nullptr, 10);
  }
  if (evaluation.sequence_length <= 0)
    evaluation.sequence_length = std::min(opened.config.max_position_embeddings, kMaxSequenceLength);
  evaluation.micro_batch_size = std::max<std::int64_t>(1, kTokensAtATime / evaluation.sequence_length);
  return evaluation;
}

}  // namespace

int run_eval(const EvalOptions& options) {
  const OpenedModel opened = open_model(options.checkpoint);
  const EvaluationOptions evaluation = evaluation_options(options, opened);
  const std::int64_t length = evaluation.sequence_length;
  const ValidationSet data({options.data}, length);
  data.require_ids_below(opened.config.vocab_size);
  const LoadedModel model = load_model(opened, {.device = options.device, .max_positions = length});
  MicroBatchBuffer buffer(*model.session, evaluation.micro_batch_size * length);
  const Evaluation result = evaluate(*model.session, buffer, data, evaluation);
  log_info("evaluation | {} | cross-entropy-loss {:.4f} | perplexity {:.4f} | tokens {}", model.folder.string(),
           result.loss, std::exp(result.loss), with_commas(result.tokens));
  return 0;
}

}  // namespace lathe
