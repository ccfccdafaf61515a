#include "data/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/checked.h"
#include "core/error.h"
#include "core/philox.h"

namespace lathe {
namespace {

constexpr std::int64_t kMixPeriod = 100'000;
// Keeps the shuffle's random numbers apart from those that others draw from the same seed.
constexpr std::uint64_t kShuffleStream = std::uint64_t{0xDA} << 56;

std::int64_t count_samples(const TokenFile& file, std::int64_t sequence_length) {
  return file.tokens() < 1 ? 0 : (file.tokens() - 1) / sequence_length;
}

void read_sample(const TokenFile& file, std::int64_t position, std::span<std::int32_t> tokens,
                 std::vector<std::int32_t>* document_starts) {
  const auto inputs = static_cast<std::int64_t>(tokens.size()) - 1;
  const std::int64_t begin = position * inputs;
  file.read(begin, tokens);
  if (document_starts == nullptr) return;
  std::vector<std::int64_t> starts;
  file.find_document_starts(begin + 1, begin + inputs, starts);
  document_starts->clear();
  for (const std::int64_t start : starts) document_starts->push_back(static_cast<std::int32_t>(start - begin));
}

// Whole shares of the period by largest remainder, at least 1 each.
std::vector<std::int64_t> quotas(const std::vector<WeightedCorpus>& corpora) {
  double total = 0;
  for (const auto& corpus : corpora) total += corpus.weight;
  std::vector<std::int64_t> shares;
  std::vector<double> remainders;
  for (const auto& corpus : corpora) {
    const double exact = corpus.weight / total * static_cast<double>(kMixPeriod);
    shares.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(exact)));
    remainders.push_back(exact - static_cast<double>(shares.back()));
  }
  std::int64_t missing = kMixPeriod - std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
  for (; missing > 0; --missing) {
    const auto next = std::max_element(remainders.begin(), remainders.end()) - remainders.begin();
    ++shares[static_cast<std::size_t>(next)];
    remainders[static_cast<std::size_t>(next)] -= 1;
  }
  for (; missing < 0; ++missing) --*std::max_element(shares.begin(), shares.end());
  return shares;
}

}  // namespace

std::int64_t shuffled_position(std::int64_t position, std::int64_t count, std::uint64_t seed, std::uint64_t stream) {
  const auto n = static_cast<std::uint64_t>(count);
  auto x = static_cast<std::uint64_t>(position);
  const Philox random(seed, stream);
  // The distance from a uniform permutation falls as (3/4)^(rounds/2) * n^1.5; this is far past what a test can tell.
  const std::uint64_t rounds = 64 + 4 * static_cast<std::uint64_t>(std::bit_width(n));
  for (std::uint64_t round = 0; round < rounds; ++round) {
    // Counters: bit 63 sets the round's key apart from its coin flips, which are told apart by the pair's larger
    // member.
    const std::uint64_t key = random.below((std::uint64_t{1} << 63) | round, n);
    const std::uint64_t partner = key >= x ? key - x : key + n - x;
    const std::uint64_t larger = std::max(x, partner);
    check(larger < (std::uint64_t{1} << 54), "{} samples an epoch are too many to shuffle", count);
    if ((random.block((round << 54) ^ larger)[0] & 1U) != 0) x = partner;
  }
  return static_cast<std::int64_t>(x);
}

Sampler::Sampler(const std::vector<WeightedCorpus>& corpora, std::int64_t sequence_length, std::uint64_t seed)
    : sequence_length_(sequence_length), seed_(seed) {
  require(sequence_length >= 1, "sequence_length is {}, it must be at least 1", sequence_length);
  require(!corpora.empty(), "no training corpus is given");
  require(corpora.size() <= 1000, "{} corpora, at most 1000 can be mixed", corpora.size());
  for (const auto& corpus : corpora) {
    require(std::isfinite(corpus.weight) && corpus.weight > 0 && corpus.weight < 1e100,
            "{}: weight {}, it must be above 0 and finite", corpus.prefix.string(), corpus.weight);
    TokenFile file(corpus.prefix);
    const std::int64_t samples = count_samples(file, sequence_length);
    require(samples > 0, "{}: {} tokens hold no sample of sequence_length {}, which takes {}",
            bin_path(corpus.prefix).string(), file.tokens(), sequence_length, sequence_length + 1);
    corpora_.push_back({std::move(file), samples, 1});
  }
  plan_mix(corpora);
}

void Sampler::plan_mix(const std::vector<WeightedCorpus>& corpora) {
  if (corpora.size() == 1) {
    turns_ = {{0, 0}};
    return;
  }
  const auto shares = quotas(corpora);
  std::vector<std::int64_t> deficits(shares.size(), 0);  // share * (t + 1) - period * samples so far
  std::vector<std::int32_t> counts(shares.size(), 0);
  turns_.reserve(static_cast<std::size_t>(kMixPeriod));
  for (std::int64_t t = 0; t < kMixPeriod; ++t) {
    for (std::size_t c = 0; c < shares.size(); ++c) deficits[c] += shares[c];
    const auto chosen = std::max_element(deficits.begin(), deficits.end()) - deficits.begin();
    deficits[static_cast<std::size_t>(chosen)] -= kMixPeriod;
    turns_.push_back({static_cast<std::int32_t>(chosen), counts[static_cast<std::size_t>(chosen)]++});
  }
  for (std::size_t c = 0; c < shares.size(); ++c) corpora_[c].quota = shares[c];
}

std::int64_t Sampler::samples_per_epoch() const {
  std::int64_t total = 0;
  for (const Corpus& corpus : corpora_) total += corpus.samples;
  return total;
}

std::int64_t Sampler::samples_from(std::size_t corpus, std::int64_t num_samples) const {
  const auto period = static_cast<std::int64_t>(turns_.size());
  const auto rest = turns_.begin() + num_samples % period;
  return num_samples / period * corpora_[corpus].quota + std::count_if(turns_.begin(), rest, [&](const Turn& t) {
           return static_cast<std::size_t>(t.corpus) == corpus;
         });
}

void Sampler::require_global_batch(std::int64_t global_batch_size) const {
  require(samples_per_epoch() >= global_batch_size,
          "{}{}: an epoch has {} samples of sequence_length {}, fewer than global_batch_size {}",
          corpora_[0].file.prefix().string(), corpora_.size() > 1 ? " and the others" : "", samples_per_epoch(),
          sequence_length_, global_batch_size);
}

void Sampler::require_ids_below(std::int64_t vocab_size) const {
  for (const Corpus& corpus : corpora_) corpus.file.require_ids_below(vocab_size);
}

void Sampler::sample(std::int64_t index, std::span<std::int32_t> tokens,
                     std::vector<std::int32_t>* document_starts) const {
  check(index >= 0 && static_cast<std::int64_t>(tokens.size()) == sequence_length_ + 1,
        "sample {} into {} tokens, sequence_length is {}", index, tokens.size(), sequence_length_);
  const auto period = static_cast<std::int64_t>(turns_.size());
  const Turn turn = turns_[static_cast<std::size_t>(index % period)];
  const Corpus& corpus = corpora_[static_cast<std::size_t>(turn.corpus)];
  const std::int64_t count = checked_add<std::int64_t>(checked_mul(index / period, corpus.quota), turn.before);
  const auto epoch = static_cast<std::uint64_t>(count / corpus.samples);
  check(epoch < (std::uint64_t{1} << 40), "epoch {} is out of range", epoch);
  const std::uint64_t stream = kShuffleStream | static_cast<std::uint64_t>(turn.corpus) << 40 | epoch;
  read_sample(corpus.file, shuffled_position(count % corpus.samples, corpus.samples, seed_, stream), tokens,
              document_starts);
}

ValidationSet::ValidationSet(const std::vector<std::filesystem::path>& prefixes, std::int64_t sequence_length)
    : sequence_length_(sequence_length) {
  require(sequence_length >= 1, "sequence_length is {}, it must be at least 1", sequence_length);
  require(!prefixes.empty(), "no validation corpus is given");
  for (const auto& prefix : prefixes) files_.emplace_back(prefix);
  require(num_samples() > 0, "{}{}: {} tokens hold no validation sample of sequence_length {}, which takes {}",
          bin_path(prefixes[0]).string(), prefixes.size() > 1 ? " (and the others)" : "", files_[0].tokens(),
          sequence_length, sequence_length + 1);
}

std::int64_t ValidationSet::num_samples() const {
  std::int64_t total = 0;
  for (const TokenFile& file : files_) total += count_samples(file, sequence_length_);
  return total;
}

void ValidationSet::require_ids_below(std::int64_t vocab_size) const {
  for (const TokenFile& file : files_) file.require_ids_below(vocab_size);
}

void ValidationSet::sample(std::int64_t index, std::span<std::int32_t> tokens,
                           std::vector<std::int32_t>* document_starts) const {
  check(index >= 0 && index < num_samples() && static_cast<std::int64_t>(tokens.size()) == sequence_length_ + 1,
        "validation sample {} of {} into {} tokens, sequence_length is {}", index, num_samples(), tokens.size(),
        sequence_length_);
  for (const TokenFile& file : files_) {
    const std::int64_t samples = count_samples(file, sequence_length_);
    if (index < samples) return read_sample(file, index, tokens, document_starts);
    index -= samples;
  }
}

}  // namespace lathe
