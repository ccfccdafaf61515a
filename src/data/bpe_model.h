// Byte-pair merging of one piece of text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"

namespace lathe {

// Finds a transparently hashed std::string by a view.
struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using TextIds = std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>>;

// Ids of tokens lie below this, so that tables over them stay small whatever a file claims.
inline constexpr std::int64_t kMaxTokenId = std::int64_t{1} << 24;

class BpeModel {
 public:
  // What one thread needs: room to merge, and the words met lately with their ids.
  class Scratch {
   public:
    Scratch() : cache(kCacheSlots) {}

   private:
    friend class BpeModel;
    static constexpr std::size_t kCacheSlots = std::size_t{1} << 15;
    static constexpr std::size_t kCachedBytes = 22;
    static constexpr std::size_t kCachedIds = 10;
    struct Slot {  // 64 bytes: a cache line
      std::uint8_t bytes = 0;
      std::uint8_t ids = 0;
      char word[kCachedBytes];
      std::int32_t id[kCachedIds];
    };
    struct Symbol {
      std::int32_t id;
      std::uint32_t rank;  // of the pair with the next symbol
      std::int32_t previous;
      std::int32_t next;
    };
    std::vector<Slot> cache;
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;
  };

  // The `model` of a tokenizer.json. Throws InputError naming `source` and what is not supported or contradictory.
  BpeModel(const Json& model, const std::string& source);

  // Appends the ids of a piece of text.
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  // By the token's text in the file, in which each byte is written as a printable character.
  const TextIds& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    std::uint64_t pair = kNoPair;
    std::uint32_t rank = 0;
    std::int32_t result = 0;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  void read_vocabulary(const Json& model);
  void read_merges(const Json& model);
  void add_merge(const std::string& left, const std::string& right, std::uint32_t rank);
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  std::uint32_t rank_of(std::int32_t left, std::int32_t right) const;
  void start_symbols(std::string_view piece, Scratch& scratch) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;
  void encode_uncached(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  std::string source_;
  TextIds vocabulary_;
  TextIds whole_words_;  // by bytes; filled if a piece that is a token is taken whole (ignore_merges)
  std::int32_t byte_ids_[256];
  std::vector<Merge> merges_;  // open addressing, a power of two
};

// The bytes that a token's text stands for: each character is a byte; if one of them is none, the text itself.
std::string bytes_of_token(std::string_view text);
// Whether every character stands for a byte.
bool is_byte_text(std::string_view text);

}  // namespace lathe
