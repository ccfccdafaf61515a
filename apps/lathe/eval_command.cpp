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
std::int64_t sequence_length(const EvalOptions& options, const OpenedModel& opened) {
  if (options.sequence_length > 0) return options.sequence_length;
  if (has_run_state(opened.folder)) {
    const std::string toml = read_run_state(opened.folder).toml;
    const std::int64_t trained =
        std::strtoll(saved_setting(toml, "training.sequence_length").value_or("0").c_str(), nullptr, 10);
    if (trained > 0) return trained;
  }
  return std::min(opened.config.max_position_embeddings, kMaxSequenceLength);
}

}  // namespace

int run_eval(const EvalOptions& options) {
  const OpenedModel opened = open_model(options.checkpoint);
  const std::int64_t length = sequence_length(options, opened);
  const ValidationSet data({options.data}, length);
  data.require_ids_below(opened.config.vocab_size);
  const LoadedModel model = load_model(opened, {.device = options.device, .max_positions = length});
  const std::int64_t batch = std::max<std::int64_t>(1, kTokensAtATime / length);
  MicroBatchBuffer buffer(*model.session, batch * length);
  const std::int64_t samples = options.samples == 0 ? std::numeric_limits<std::int64_t>::max() : options.samples;
  const Evaluation result = evaluate(*model.session, buffer, data, length, samples, batch);
  log_info("evaluation | {} | cross-entropy-loss {:.4f} | perplexity {:.4f} | tokens {}", model.folder.string(),
           result.loss, std::exp(result.loss), with_commas(result.tokens));
  return 0;
}

}  // namespace lathe
