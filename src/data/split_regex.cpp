#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/split_regex.h"

#include <pcre2.h>

#include <array>

#include "core/error.h"
#include "data/utf8.h"

namespace lathe {
namespace {

constexpr std::size_t kJitStackStart = std::size_t{32} << 10;
constexpr std::size_t kJitStackMax = std::size_t{64} << 20;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

}  // namespace

struct RegexScratch::State {
  std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Freer<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)};
};

RegexScratch::RegexScratch() : state_(std::make_unique<State>()) {
  check(state_->data != nullptr && state_->context != nullptr, "no memory to match regular expressions");
  pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
}
RegexScratch::~RegexScratch() = default;
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;

struct SplitRegex::Code {
  std::unique_ptr<pcre2_code, Freer<pcre2_code_free>> compiled;
};

SplitRegex::SplitRegex(std::string_view pattern, const std::string& source)
    : code_(std::make_unique<Code>()), source_(source) {
  const std::string translated = oniguruma_to_pcre2(pattern, source);
  const std::unique_ptr<pcre2_compile_context, Freer<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  check(context != nullptr, "no memory to compile a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: in Ruby's syntax ^ and $ always match at line ends.
  code_->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get()));
  require(code_->compiled != nullptr, "{}: regular expression {}: {}", source, pattern, pcre2_message(error));
  pcre2_jit_compile(code_->compiled.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
}
SplitRegex::~SplitRegex() = default;
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;

void SplitRegex::find_all(std::string_view text, RegexScratch& scratch, std::vector<Match>& matches) const {
  matches.clear();
  auto* data = scratch.state_->data.get();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t from = 0;
  while (from <= text.size()) {
    const int result = pcre2_match(code_->compiled.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data,
                                   scratch.state_->context.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    check(result >= 0, "{}: a regular expression failed on a text of {} bytes: {}", source_, text.size(),
          pcre2_message(result));
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data);
    const Match match{found[0], found[1]};
    if (match.begin == match.end && !matches.empty() && matches.back().end == match.end) {
      from += from < text.size() ? next_utf8(text.substr(from)).bytes : 1;
      continue;
    }
    matches.push_back(match);
    from = match.end;
  }
}

}  // namespace lathe
