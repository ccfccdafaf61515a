// Text from a model, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "train/session.h"

namespace lathe {

struct SamplingOptions {
  std::int64_t max_tokens = 256;
  double temperature = 1.0;  // 0: always the likeliest token
  double top_p = 1.0;        // sample from the smallest set of tokens with at least this probability
  std::uint64_t seed = 1234;
};

// Continues `prompt` (at least one token) until max_tokens, a token of `stop`, or the session's last position. Calls
// `on_token` for each new token; it returns false to stop. A token of `stop` is not passed on.
void generate(Session& session, std::span<const std::int32_t> prompt, const SamplingOptions& options,
              std::span<const std::int32_t> stop, std::int64_t max_positions,
              const std::function<bool(std::int32_t)>& on_token);

// The token that a uniform number in [0, 1) picks. Exposed for its test.
std::int32_t sample_token(std::span<const float> logits, double temperature, double top_p, double uniform);

}  // namespace lathe
