// Tokens that are found in the text itself, before it is cut and merged: the `added_tokens` of a tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/bpe_model.h"

namespace lathe {

class AddedTokens {
 public:
  struct Token {
    std::string text;
    std::int32_t id;
    bool special;
    bool takes_space_before;  // lstrip
    bool takes_space_after;   // rstrip
    bool normalized;          // looked for in what the others leave
  };
  struct Segment {
    std::string_view text;
    std::int32_t id;  // of an added token; -1: ordinary text
  };

  // Throws InputError naming `source`; an id may not contradict the vocabulary.
  AddedTokens(const Json* list, const TextIds& vocabulary, const std::string& source);

  const std::vector<Token>& tokens() const { return tokens_; }
  // Replaces `segments`; none is empty. At each place the longest token wins, and the leftmost place first.
  void split(std::string_view text, std::vector<Segment>& segments) const;

 private:
  using Index = std::array<std::vector<std::size_t>, 256>;  // by first byte, the longest first
  void split_one(const Index& index, std::string_view text, std::vector<Segment>& segments) const;
  const Token* find(const Index& index, std::string_view text) const;

  std::vector<Token> tokens_;
  Index plain_;
  Index normalized_;
  bool any_normalized_ = false;
};

}  // namespace lathe
