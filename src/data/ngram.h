// How hard a text is for the simplest models: the yardstick for a run's loss.
#pragma once

#include <array>
#include <cstdint>

#include "data/token_file.h"

namespace lathe {

inline constexpr int kMaxNgramOrder = 4;
// Of each file at most this many tokens, from its start, are counted or measured: memory grows with distinct n-grams.
inline constexpr std::int64_t kMaxNgramTokens = std::int64_t{1} << 25;

struct NgramEntropy {
  std::array<double, kMaxNgramOrder> nats_per_token;  // [k - 1]: of the k-gram model
  std::int64_t vocab_size;
  std::int64_t counted_tokens;
  std::int64_t measured_tokens;
};

// Mean -log p of the tokens of `measured` under 1- to 4-gram models counted on `counted`, interpolated Witten-Bell:
//   p_k(w | context) = (c + D p_(k-1)(w)) / (T + D)
// with c the count of w after the last k - 1 tokens, T that context's count and D its number of distinct followers; a
// context never seen leaves p_(k-1). p_0 is uniform over the vocabulary, 258 (bytes) or 1 + the largest id of both
// files if that is more. Each file is one stream, its documents one after another; the first tokens have what context
// there is.
NgramEntropy ngram_entropy(const TokenFile& counted, const TokenFile& measured);

}  // namespace lathe
