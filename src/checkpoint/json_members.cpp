#include "checkpoint/json_members.h"

#include <algorithm>
#include <cstddef>

#include "core/error.h"
#include "core/json.h"

namespace lathe {
namespace {

class Scanner {
 public:
  Scanner(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  // The next character after white space; '\0' at the end.
  char peek() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  void expect(char wanted) {
    if (peek() != wanted) refuse("{}: not a JSON object: no '{}' at byte {}", source_, wanted, at_);
    ++at_;
  }

  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }

  // A string with its quotes.
  std::string_view string_text() {
    const std::size_t begin = at_;
    expect('"');
    skip_string_rest();
    return text_.substr(text_.find('"', begin), at_ - text_.find('"', begin));
  }

  // Whatever stands up to the comma or bracket that ends the member.
  std::string_view value_text() {
    peek();
    const std::size_t begin = at_;
    std::size_t depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (depth == 0 && (c == ',' || c == '}' || c == ']')) break;
      ++at_;
      if (c == '"') skip_string_rest();
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
    }
    return text_.substr(begin, at_ - begin);
  }

  void expect_end() {
    if (peek() != '\0' || at_ != text_.size()) refuse("{}: more text after the JSON object at byte {}", source_, at_);
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

  void skip_string_rest() {
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) refuse("{}: not a JSON object: a string without an end", source_);
    ++at_;
  }

  std::string_view text_;
  std::string_view source_;
  std::size_t at_ = 0;
};

std::string parse_key(std::string_view quoted, std::string_view source) {
  require(quoted.size() <= kMaxNameBytes, "{}: a name of {} bytes, at most {} are allowed", source, quoted.size(),
          kMaxNameBytes);
  std::string key = Json::parse(quoted, source).string();
  require(!key.empty(), "{}: an empty name", source);
  for (const char c : key) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f) refuse("{}: a name with the control character {:#04x}", source, code);
  }
  return key;
}

}  // namespace

void for_each_member(std::string_view text, std::string_view source,
                     const std::function<void(std::string, std::string_view)>& visit) {
  Scanner scanner(text, source);
  scanner.expect('{');
  if (!scanner.take('}')) {
    do {
      std::string key = parse_key(scanner.string_text(), source);
      scanner.expect(':');
      visit(std::move(key), scanner.value_text());
    } while (scanner.take(','));
    scanner.expect('}');
  }
  scanner.expect_end();
}

}  // namespace lathe
