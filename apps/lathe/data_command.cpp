#include "lathe/data_command.h"

#include <fmt/core.h>

#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "data/ngram.h"
#include "data/sampler.h"
#include "data/token_file.h"
#include "data/tokenizer.h"

namespace lathe {
namespace {

void print_file(const TokenFile& file) {
  fmt::print("{}\n  tokens      {}\n  documents   {}\n  token type  {}\n", file.prefix().string(),
             with_commas(file.tokens()), with_commas(file.documents()), name_of(file.type()));
}

std::string share_of(std::int64_t used, const TokenFile& file) {
  if (used == file.tokens()) return file.prefix().string();
  return fmt::format("the first {} tokens of {}", with_commas(used), file.prefix().string());
}

}  // namespace

void run_data_stats(const DataStatsOptions& options) {
  const TokenFile counted(options.prefix);
  const TokenFile measured(options.against.value_or(options.prefix));
  const NgramEntropy entropy = ngram_entropy(counted, measured);
  print_file(counted);
  if (options.against) print_file(measured);
  fmt::print("cross-entropy in nats a token, vocabulary of {}, counted on {}, measured on {}\n",
             with_commas(entropy.vocab_size), share_of(entropy.counted_tokens, counted),
             share_of(entropy.measured_tokens, measured));
  for (std::size_t k = 0; k < entropy.nats_per_token.size(); ++k)
    fmt::print("  {}-gram      {:.4f}\n", k + 1, entropy.nats_per_token[k]);
}

void run_data_show(const DataShowOptions& options) {
  const auto tokenizer = load_tokenizer(options.tokenizer);
  const TokenFile file(options.prefix);
  const ValidationSet samples({options.prefix}, options.sequence_length);
  require(options.sample >= 0 && options.sample < samples.num_samples(),
          "{}: sample {}; allowed: 0 to {} (sequence_length {})", bin_path(options.prefix).string(), options.sample,
          samples.num_samples() - 1, options.sequence_length);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(options.sequence_length) + 1);
  std::vector<std::int32_t> starts;
  samples.sample(options.sample, tokens, &starts);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    require(tokens[i] >= 0 && tokens[i] < tokenizer->vocab_size(), "{}: token {} has id {}; tokenizer {} has 0 to {}",
            bin_path(options.prefix).string(), options.sample * options.sequence_length + static_cast<std::int64_t>(i),
            tokens[i], options.tokenizer, tokenizer->vocab_size() - 1);
  fmt::print("sample {} of {}: tokens {} to {}, {} document starts inside\n", options.sample, samples.num_samples(),
             options.sample * options.sequence_length, (options.sample + 1) * options.sequence_length, starts.size());
  fmt::print("{}\n", tokenizer->decode(std::span(tokens).first(tokens.size() - 1), true));
}

}  // namespace lathe
