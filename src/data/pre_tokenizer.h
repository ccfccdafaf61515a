// Cuts text into the pieces inside which byte pairs are merged: the `pre_tokenizer` of a tokenizer.json.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/split_regex.h"

namespace lathe {

class PreTokenizer {
 public:
  // What one thread needs; a result's views live until its next use.
  struct Scratch {
    RegexScratch regex;
    std::vector<SplitRegex::Match> matches;
    std::vector<std::string_view> pieces;
    std::vector<std::string_view> next;
    std::deque<std::string> texts;
  };

  // ByteLevel, Split, Digits or a Sequence of them, the last one ByteLevel. Throws InputError naming `source` and what
  // is not supported.
  PreTokenizer(const Json* description, const std::string& source);

  // No piece is empty.
  const std::vector<std::string_view>& split(std::string_view text, Scratch& scratch) const;

 private:
  struct Step {
    enum class Kind { isolate, keep_matches, drop_matches, prefix_space } kind;
    std::optional<SplitRegex> regex;  // none for prefix_space
  };
  void add(const Json& description, const std::string& source);
  void add_split(const Json& description, const std::string& source);
  void add_byte_level(const Json& description, const std::string& source);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace lathe
