#include "lathe/arguments.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "core/error.h"
#include "lathe/nearest_name.h"

namespace lathe {
namespace {

TEST(Arguments, Tokens) {
  EXPECT_EQ(parse_tokens("--tokens", "1,2,3", 1), (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(parse_tokens("--tokens", "0, 2147483647", 2), (std::vector<std::int32_t>{0, 2147483647}));
  for (const char* bad : {"", ",", "1,", ",1", "1,,2", "a", "1,b", "-1", "+1", "1.5", "2147483648",
                          "99999999999999999999999", "1 2", "1,2;3", "0x1"})
    EXPECT_THROW(parse_tokens("--tokens", bad, 1), InputError) << bad;
  EXPECT_THROW(parse_tokens("--tokens", "1", 2), InputError);
}

TEST(Arguments, TheErrorNamesTheItemAndStaysShort) {
  try {
    parse_tokens("--tokens", "1,2," + std::string(1 << 20, 'x'), 1);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("--tokens: item 3 is 'xxx"), std::string::npos);
    EXPECT_LT(std::string(error.what()).size(), 300U);
  }
}

TEST(Arguments, Integers) {
  EXPECT_EQ(parse_integer("--n", "42", 0, 100), 42);
  EXPECT_EQ(parse_integer("--n", "010", 0, 100), 10);  // decimal, never octal
  EXPECT_EQ(parse_integer("--n", "-3", -5, 5), -3);
  for (const char* bad : {"", " 1", "1 ", "1.0", "1e3", "0x10", "101", "-1", "9223372036854775808", "x"})
    EXPECT_THROW(parse_integer("--n", bad, 0, 100), InputError) << bad;
}

TEST(Arguments, Numbers) {
  const double most = std::numeric_limits<double>::max();
  EXPECT_EQ(parse_number("--t", "1e-3", 0, 1), 1e-3);
  EXPECT_EQ(parse_number("--t", "1", 0, 1), 1.0);
  for (const char* bad : {"", "nan", "inf", "-inf", "-0.1", "1e999", "1,5", "one", "1.0x"})
    EXPECT_THROW(parse_number("--t", bad, 0, most), InputError) << bad;
}

TEST(NearestName, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("train", "trian"), 1);  // two neighbours swapped
  EXPECT_EQ(edit_distance("train", "trains"), 1);
  EXPECT_EQ(edit_distance("train", "brain"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  constexpr std::array<std::string_view, 3> kKnown{"eval", "train", "verify"};
  EXPECT_EQ(nearest_name("trian", kKnown), "train");
  EXPECT_EQ(nearest_name("verfy", kKnown), "verify");
}

}  // namespace
}  // namespace lathe
