// Values of command-line flags, read strictly: the whole text must be the value. Errors name the flag and what it
// takes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lathe {

// A decimal whole number in [min, max].
std::int64_t parse_integer(std::string_view flag, std::string_view text, std::int64_t min, std::int64_t max);

// A finite number in [min, max].
double parse_number(std::string_view flag, std::string_view text, double min, double max);

// "1,2,3": at least `min_count` token ids, each from 0 to 2^31 - 1. Spaces after commas are allowed.
std::vector<std::int32_t> parse_tokens(std::string_view flag, std::string_view text, std::size_t min_count);

}  // namespace lathe
