// Which tokens a step trains on: a pure function of (seed, sample index), so that a run resumes from a count alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "data/token_file.h"

namespace lathe {

struct WeightedCorpus {
  std::filesystem::path prefix;  // of .bin and .idx
  double weight = 1.0;           // share of the samples, relative to the others'
};

// Where `position` goes in the shuffled order of [0, count): a bijection for each (seed, stream), computed without a
// table. It is the swap-or-not shuffle (Hoang, Morris, Rogaway, CRYPTO 2012), which takes any count.
std::int64_t shuffled_position(std::int64_t position, std::int64_t count, std::uint64_t seed, std::uint64_t stream);

// The training samples. A corpus of t tokens has (t - 1) / s samples an epoch; sample i is its tokens [i*s, i*s + s],
// and each epoch is a permutation given by (seed, corpus, epoch).
//
// Several corpora are interleaved by the largest deficit: the weights become whole numbers q_c, at least 1, that add up
// to Q = 100,000, and sample t goes to the corpus with the largest q_c * (t + 1) - Q * (samples of c before t), the
// first of equals. After Q samples each corpus has given exactly q_c of them and the pattern repeats, so the place of
// any sample is known without counting from the start.
class Sampler {
 public:
  // Throws InputError: no corpus, bad files, a weight that is not positive, a corpus without one sample.
  Sampler(const std::vector<WeightedCorpus>& corpora, std::int64_t sequence_length, std::uint64_t seed);

  std::int64_t sequence_length() const { return sequence_length_; }
  std::size_t num_corpora() const { return corpora_.size(); }
  const TokenFile& corpus(std::size_t index) const { return corpora_[index].file; }
  // Over all corpora, each once.
  std::int64_t samples_per_epoch() const;
  std::int64_t samples_per_epoch(std::size_t corpus) const { return corpora_[corpus].samples; }
  // How many of the first `num_samples` samples come from a corpus.
  std::int64_t samples_from(std::size_t corpus, std::int64_t num_samples) const;

  // Throws InputError naming both numbers if an epoch has fewer samples than one global batch.
  void require_global_batch(std::int64_t global_batch_size) const;
  void require_ids_below(std::int64_t vocab_size) const;

  // Fills `tokens` [s + 1] with sample `index` >= 0: the inputs are its first s, the targets its last s. If wanted,
  // `document_starts` gets the positions in [1, s) at which an input begins another document, ascending.
  void sample(std::int64_t index, std::span<std::int32_t> tokens,
              std::vector<std::int32_t>* document_starts = nullptr) const;

 private:
  struct Corpus {
    TokenFile file;
    std::int64_t samples;  // an epoch
    std::int64_t quota;    // of a period of the mix
  };
  struct Turn {
    std::int32_t corpus;
    std::int32_t before;  // samples of that corpus earlier in the period
  };
  void plan_mix(const std::vector<WeightedCorpus>& corpora);

  std::vector<Corpus> corpora_;
  std::vector<Turn> turns_;  // one period of the mix
  std::int64_t sequence_length_;
  std::uint64_t seed_;
};

// Samples for validation: in file order, one corpus after another.
class ValidationSet {
 public:
  // Throws InputError if the corpora have no sample of `sequence_length` between them.
  ValidationSet(const std::vector<std::filesystem::path>& prefixes, std::int64_t sequence_length);

  std::int64_t num_samples() const;
  void require_ids_below(std::int64_t vocab_size) const;
  // As Sampler::sample, for index in [0, num_samples()).
  void sample(std::int64_t index, std::span<std::int32_t> tokens,
              std::vector<std::int32_t>* document_starts = nullptr) const;

 private:
  std::vector<TokenFile> files_;
  std::int64_t sequence_length_;
};

}  // namespace lathe
