#include <cmath>
#include <limits>

#include "core/log.h"
#include "data/sampler.h"
#include "lathe/commands.h"
#include "lathe/runtime.h"
#include "train/evaluate.h"

namespace lathe {
namespace {

constexpr std::int64_t kMaxSequenceLength = 2048;  // of a sample, or the model's own limit if that is less
constexpr std::int64_t kTokensAtATime = 8192;

}  // namespace

int run_eval(const EvalOptions& options) {
  const OpenedModel opened = open_model(options.checkpoint);
  const std::int64_t length = std::min(opened.config.max_position_embeddings, kMaxSequenceLength);
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
