// The regular expressions of a tokenizer.json, which are written for Oniguruma (Ruby syntax, Unicode), run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

// What one thread needs to match; serves any number of expressions.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;

 private:
  friend class SplitRegex;
  struct State;
  std::unique_ptr<State> state_;
};

class SplitRegex {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
  };

  // Throws InputError, naming `source`, for what is no expression or may mean something else in PCRE2.
  SplitRegex(std::string_view pattern, const std::string& source);
  ~SplitRegex();
  SplitRegex(SplitRegex&&) noexcept;

  // Replaces `matches` by those in `text`, which must be valid UTF-8, from left to right. An empty match counts unless
  // it touches the match before it.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Match>& matches) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  std::string source_;
};

// The same expression for PCRE2 with UTF, UCP and MULTILINE; throws as SplitRegex does.
std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& source);
// An expression that matches `text` itself.
std::string quote_regex(std::string_view text);

}  // namespace lathe
