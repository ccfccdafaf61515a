#include "train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/philox.h"
#include "train/host_copy.h"

namespace lathe {
namespace {

constexpr std::uint64_t kSamplingStream = 0x67656e6572617465U;  // "generate"

}  // namespace

std::int32_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (temperature == 0) return static_cast<std::int32_t>(likeliest - logits.begin());

  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t id) { return static_cast<double>(logits[static_cast<std::size_t>(id)]); };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  std::vector<double> weights(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    weights[i] = std::exp((logit(order[i]) - static_cast<double>(*likeliest)) / temperature);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t kept = 0;
  double mass = 0;
  while (kept < weights.size() && (kept == 0 || mass < top_p * total)) mass += weights[kept++];
  double left = uniform * mass;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

void generate(Session& session, std::span<const std::int32_t> prompt, const SamplingOptions& options,
              std::span<const std::int32_t> stop, std::int64_t max_positions,
              const std::function<bool(std::int32_t)>& on_token) {
  check(!prompt.empty(), "generation needs a prompt of at least one token");
  const std::int64_t vocab = session.config().vocab_size;
  Arena cache_memory(session.device(), "latent cache");
  const std::vector<LatentCache> caches = session.model().make_caches(cache_memory, max_positions);
  const TensorView logits = cache_memory.take(DType::f32, {1, vocab});
  MicroBatchBuffer buffer(session, static_cast<std::int64_t>(prompt.size()));
  const Philox random(options.seed, kSamplingStream);

  std::vector<std::int32_t> next(prompt.begin(), prompt.end());
  std::int64_t length = 0;
  std::vector<float> values(static_cast<std::size_t>(vocab));
  for (std::int64_t count = 0; count < options.max_tokens; ++count) {
    const auto rows = static_cast<std::int64_t>(next.size());
    if (length + rows > max_positions) return;
    const MicroBatch batch = buffer.fill(next, {}, 1, length);
    session.model().decode(batch.tokens, batch.positions, length, caches, logits);
    length += rows;
    const HostCopy copy(session.device(), session.ops().stream, logits);
    std::copy_n(copy.view().as<float>(), vocab, values.begin());
    const std::int32_t token =
        sample_token(values, options.temperature, options.top_p, random.uniform(static_cast<std::uint64_t>(count)));
    if (std::find(stop.begin(), stop.end(), token) != stop.end() || !on_token(token)) return;
    next.assign(1, token);
  }
}

}  // namespace lathe
