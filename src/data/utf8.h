// UTF-8 as the tokenizers need it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

// The character at the start of `text`, or how much of it is broken.
struct Utf8Step {
  char32_t code = 0;
  std::size_t bytes = 0;  // of the character; of the longest start of one if it is not whole; at least 1
  bool valid = false;
  bool cut_off = false;  // not valid, but more text could make it so
};

// `text` must not be empty. Surrogates, overlong forms and values above U+10FFFF are not valid.
Utf8Step next_utf8(std::string_view text);

// The position of the first byte that is not valid, or npos.
std::size_t find_invalid_utf8(std::string_view text);

// Each maximal start of a character that is not whole, or else each byte, becomes one U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

void append_utf8(char32_t code, std::string& text);

// Unicode's White_Space property.
bool is_unicode_space(char32_t code);

}  // namespace lathe
