#include <cctype>

#include "core/error.h"
#include "data/split_regex.h"

namespace lathe {
namespace {

// Rewrites what the two dialects spell differently and refuses what they understand differently.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& source) : pattern_(pattern), source_(source) {}

  std::string run() {
    while (!done()) {
      const char c = take();
      if (c == '\\')
        escape(false);
      else if (c == '[')
        character_class();
      else if (c == '(')
        group();
      else if (c == '{')
        interval();
      else
        out_.push_back(c);
    }
    return std::move(out_);
  }

 private:
  bool done() const { return place_ == pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(place_).starts_with(text); }
  char take() {
    if (done()) reject("it ends too early");
    return pattern_[place_++];
  }
  bool take_if(std::string_view text) {
    if (!next_is(text)) return false;
    place_ += text.size();
    out_ += text;
    return true;
  }
  [[noreturn]] void reject(std::string_view reason) const {
    refuse("{}: regular expression {}: {} (at byte {})", source_, pattern_, reason, place_);
  }

  void escape(bool in_class) {
    const char c = take();
    switch (c) {
      case 's':  // PCRE2's own \s also takes U+180E
        out_ += "\\p{White_Space}";
        return;
      case 'S':
        out_ += "\\P{White_Space}";
        return;
      case 'w':
        out_ += in_class ? kWord : "[" + kWord + "]";
        return;
      case 'W':
        if (in_class) reject("\\W in a class is not supported");
        out_ += "[^" + kWord + "]";
        return;
      case 'v':
        out_ += "\\x0b";
        return;
      case 'u':
        code_point();
        return;
      case 'p':
      case 'P':
        property(c);
        return;
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
        out_ += {'\\', c};
        return;
      case 'x':
        out_ += "\\x";
        return;
      case 'A':
      case 'z':
      case 'Z':
        if (in_class) reject("an anchor in a class");
        out_ += {'\\', c};
        return;
      default:
        if (std::isalnum(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) >= 0x80)
          reject(fmt::format("\\{} is not supported", c));
        out_ += {'\\', c};
    }
  }

  void code_point() {
    out_ += "\\x{";
    for (int i = 0; i < 4; ++i) {
      const char digit = take();
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) reject("\\u takes 4 hexadecimal digits");
      out_.push_back(digit);
    }
    out_.push_back('}');
  }

  void property(char letter) {
    if (!next_is("{")) reject("\\p without { is not supported");
    out_ += {'\\', letter};
    char c = 0;
    do {
      c = take();
      out_.push_back(c);
    } while (c != '}');
  }

  void character_class() {
    out_.push_back('[');
    take_if("^");
    if (next_is("]")) reject("a class that begins with ]");
    for (;;) {
      const char c = take();
      if (c == '\\') {
        escape(true);
        continue;
      }
      if (c == '[') reject("a class inside a class is not supported");
      if (c == '&' && next_is("&")) reject("&& in a class is not supported");
      out_.push_back(c);
      if (c == ']') return;
    }
  }

  void group() {
    out_.push_back('(');
    if (!next_is("?")) {
      if (next_is("*")) reject("(* is not supported");
      return;
    }
    for (const auto* kind : {"?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:"})
      if (take_if(kind)) return;
    // Elsewhere the two differ on how far it reaches over alternatives.
    if (place_ == 1 && take_if("?i)")) return;
    reject("this kind of group is not supported");
  }

  // {n}, {n,} and {n,m}; a brace that begins none of these is an ordinary character in both.
  void interval() {
    std::size_t end = place_;
    while (end < pattern_.size() &&
           (std::isdigit(static_cast<unsigned char>(pattern_[end])) != 0 || pattern_[end] == ','))
      ++end;
    if (end == place_ || end == pattern_.size() || pattern_[end] != '}') {
      out_ += "\\{";
      return;
    }
    const std::string_view counts = pattern_.substr(place_, end - place_);
    if (counts.front() == ',') reject("{,n} is not supported");
    out_ += fmt::format("{{{}}}", counts);
    place_ = end + 1;
    if (next_is("+")) reject("{n,m}+ is not supported");
    if (next_is("?") && counts.find(',') == std::string_view::npos) reject("{n}? is not supported");
  }

  inline static const std::string kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

  std::string_view pattern_;
  const std::string& source_;
  std::size_t place_ = 0;
  std::string out_;
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& source) {
  return Translator(pattern, source).run();
}

std::string quote_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) == 0) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace lathe
