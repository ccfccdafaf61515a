#include "data/ngram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"

namespace lathe {
namespace {

constexpr std::int64_t kReadTokens = std::int64_t{1} << 16;
constexpr std::int64_t kByteVocabulary = 258;
constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

// The n-grams of one order, each a shorter one (its number) and one more token, numbered as they are met.
class GramTable {
 public:
  GramTable() : slots_(1024) {}

  std::uint32_t find(std::uint32_t prefix, std::int32_t token) const {
    const std::uint64_t key = key_of(prefix, token);
    for (std::size_t slot = start(key);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].number == kNone) return kNone;
      if (slots_[slot].key == key) return slots_[slot].number;
    }
  }

  // The n-gram's number; `is_new` says whether it was met for the first time. Counts it.
  std::uint32_t count(std::uint32_t prefix, std::int32_t token, bool& is_new) {
    const std::uint64_t key = key_of(prefix, token);
    std::size_t slot = start(key);
    while (slots_[slot].number != kNone && slots_[slot].key != key) slot = (slot + 1) & (slots_.size() - 1);
    is_new = slots_[slot].number == kNone;
    if (is_new) {
      slots_[slot] = {key, static_cast<std::uint32_t>(grams_.size())};
      grams_.push_back({});
    }
    const std::uint32_t number = slots_[slot].number;
    ++grams_[number].count;
    if (is_new && grams_.size() * 2 > slots_.size()) grow();
    return number;
  }

  struct Gram {
    std::uint32_t count = 0;      // as an n-gram
    std::uint32_t followed = 0;   // as a context: how often it has a next token (the last of the stream has none)
    std::uint32_t followers = 0;  // and how many distinct ones
  };
  Gram& operator[](std::uint32_t number) { return grams_[number]; }
  const Gram& operator[](std::uint32_t number) const { return grams_[number]; }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t number = kNone;
  };
  static std::uint64_t key_of(std::uint32_t prefix, std::int32_t token) {
    return std::uint64_t{prefix} << 32 | static_cast<std::uint32_t>(token);
  }
  std::size_t start(std::uint64_t key) const {
    const std::uint64_t mixed = (key ^ key >> 29) * 0x9E3779B97F4A7C15U;
    return (mixed ^ mixed >> 32) & (slots_.size() - 1);
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& entry : old) {
      if (entry.number == kNone) continue;
      std::size_t slot = start(entry.key);
      while (slots_[slot].number != kNone) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = entry;
    }
  }

  std::vector<Slot> slots_;
  std::vector<Gram> grams_;
};

// Calls `visit` on each token of a stream.
template <typename Visit>
void for_each_token(const TokenFile& file, std::int64_t count, const Visit& visit) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t begin = 0; begin < count; begin += kReadTokens) {
    tokens.resize(static_cast<std::size_t>(std::min(kReadTokens, count - begin)));
    file.read(begin, tokens);
    for (const std::int32_t token : tokens) visit(token);
  }
}

// [k]: the n-grams of k tokens; [0] is the empty context, number 0.
struct NgramModel {
  std::array<GramTable, kMaxNgramOrder + 1> grams;
  double uniform;

  NgramModel(const TokenFile& file, std::int64_t tokens, std::int64_t vocab_size)
      : uniform(1.0 / static_cast<double>(vocab_size)) {
    bool is_new = false;
    grams[0].count(0, 0, is_new);
    Context context = start();
    for_each_token(file, tokens, [&](std::int32_t token) { context = add(context, token); });
  }

  // [k]: the number of the last k tokens, kNone if there are fewer or they were never met.
  using Context = std::array<std::uint32_t, kMaxNgramOrder + 1>;
  static Context start() {
    Context context;
    context.fill(kNone);
    context[0] = 0;
    return context;
  }

  Context add(const Context& context, std::int32_t token) {
    Context next = start();
    for (std::size_t k = 1; k <= kMaxNgramOrder && context[k - 1] != kNone; ++k) {
      bool is_new = false;
      next[k] = grams[k].count(context[k - 1], token, is_new);
      auto& prefix = grams[k - 1][context[k - 1]];
      ++prefix.followed;
      if (is_new) ++prefix.followers;
    }
    return next;
  }

  // Adds -log p_k to sums[k - 1] and moves the context on.
  Context measure(const Context& context, std::int32_t token, std::array<double, kMaxNgramOrder>& sums) const {
    Context next = start();
    double p = uniform;
    for (std::size_t k = 1; k <= kMaxNgramOrder; ++k) {
      if (context[k - 1] != kNone) {
        next[k] = grams[k].find(context[k - 1], token);
        const auto& prefix = grams[k - 1][context[k - 1]];
        const double count = next[k] == kNone ? 0.0 : static_cast<double>(grams[k][next[k]].count);
        const auto total = static_cast<double>(prefix.followed);
        const auto distinct = static_cast<double>(prefix.followers);
        if (prefix.followed > 0) p = (count + distinct * p) / (total + distinct);
      }
      sums[k - 1] -= std::log(p);
    }
    return next;
  }
};

}  // namespace

NgramEntropy ngram_entropy(const TokenFile& counted, const TokenFile& measured) {
  counted.require_ids_below(std::int64_t{1} << 31);
  measured.require_ids_below(std::int64_t{1} << 31);
  for (const TokenFile* file : {&counted, &measured})
    require(file->tokens() > 0, "{}: no tokens", bin_path(file->prefix()).string());
  NgramEntropy result{};
  result.vocab_size = std::max({kByteVocabulary, counted.max_token() + 1, measured.max_token() + 1});
  result.counted_tokens = std::min(counted.tokens(), kMaxNgramTokens);
  result.measured_tokens = std::min(measured.tokens(), kMaxNgramTokens);
  const NgramModel model(counted, result.counted_tokens, result.vocab_size);
  auto context = NgramModel::start();
  for_each_token(measured, result.measured_tokens,
                 [&](std::int32_t token) { context = model.measure(context, token, result.nats_per_token); });
  for (double& sum : result.nats_per_token) sum /= static_cast<double>(result.measured_tokens);
  return result;
}

}  // namespace lathe
