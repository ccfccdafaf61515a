// The members of a large JSON object, one at a time, so that a hostile file costs no more memory than its text.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace lathe {

inline constexpr std::size_t kMaxNameBytes = 1024;

// Calls `visit` with each member's key and the text of its value, which is not checked. Throws InputError naming
// `source` if `text` is no object, or for a key that is empty, longer than kMaxNameBytes or holds control characters.
// Keys that stand twice are visited twice.
void for_each_member(std::string_view text, std::string_view source,
                     const std::function<void(std::string key, std::string_view value)>& visit);

}  // namespace lathe
