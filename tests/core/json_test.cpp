#include "core/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;

Json parse(std::string_view text) { return Json::parse(text, "f.json"); }
std::string refusal(std::string_view text) {
  return message_of([&] { parse(text); });
}

TEST(Json, ParsesEveryType) {
  const Json value = parse(R"( {"n":null,"t":true,"i":-3,"d":2.5,"s":"a\u00e9\n","l":[1,[],{}],"o":{"k":0}} )");
  EXPECT_TRUE(value.find("n")->is_null());
  EXPECT_TRUE(value.find("t")->boolean());
  EXPECT_EQ(value.find("i")->integer(), -3);
  EXPECT_EQ(value.find("i")->number(), -3.0);
  EXPECT_EQ(value.find("d")->number(), 2.5);
  EXPECT_FALSE(value.find("d")->is_integer());
  EXPECT_EQ(value.find("s")->string(), "a\xc3\xa9\n");
  EXPECT_EQ(value.find("l")->array().size(), 3U);
  EXPECT_EQ(value.find("o")->find("k")->integer(), 0);
  EXPECT_EQ(value.find("missing"), nullptr);
  EXPECT_EQ(value.find("s")->find("k"), nullptr);
}

TEST(Json, KeepsTheOrderOfMembers) {
  const std::string text = R"({"z":1,"a":{"y":[1,2.5,"x"],"b":null},"m":false})";
  EXPECT_EQ(parse(text).dump(), text);
  EXPECT_EQ(parse("[1,{\"a\":2}]").dump(2), "[\n  1,\n  {\n    \"a\": 2\n  }\n]");
}

TEST(Json, KeepsNumbersToTheLastDigit) {
  for (const double value : {0.1, 1.0 / 3, 1e-300, 1.7976931348623157e308, 5e-324, -0.0, 123456789.125}) {
    const Json back = parse(Json(value).dump());
    EXPECT_EQ(std::signbit(back.number()), std::signbit(value));
    EXPECT_EQ(back.number(), value);
    EXPECT_FALSE(back.is_integer());
  }
  for (const std::int64_t value : {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
    EXPECT_EQ(parse(Json(value).dump()).integer(), value);
  EXPECT_FALSE(parse("9223372036854775808").is_integer());
  EXPECT_EQ(parse("18446744073709551616").number(), 0x1p64);
  EXPECT_EQ(Json(std::numeric_limits<double>::quiet_NaN()).dump(), "null");
  EXPECT_EQ(Json(std::numeric_limits<double>::infinity()).dump(), "null");
}

TEST(Json, RefusesBadSyntaxInOneLine) {
  for (const char* text : {"", "{", "[1,]", "{\"a\":}", "{'a':1}", "nan", "NaN", "1 2", "\"a", "\"\n\"", "\"\xff\"",
                           "01", "{\"a\" 1}", "// c\n1", "+1", ".5", "\"\\ud800\""}) {
    const std::string message = refusal(text);
    EXPECT_TRUE(message.starts_with("f.json: not valid JSON at byte ")) << text << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_EQ(refusal(R"({"a":1,"b":2,"a":3})"), "f.json: the key \"a\" stands twice in one object");
  EXPECT_EQ(refusal(R"({"a":{"a":1},"b":{"a":1}})"), "nothing was thrown");
}

TEST(Json, RefusesDeepNesting) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(64)), "nothing was thrown");
  EXPECT_EQ(refusal(nested(65)), "f.json: JSON nested deeper than 64");
  EXPECT_EQ(refusal(std::string(1'000'000, '[')), "f.json: JSON nested deeper than 64");
}

TEST(Json, RefusesValuesOfAnotherType) {
  EXPECT_EQ(message_of([] { parse("1.5").integer(); }), "expected a whole number, found a fractional number");
  EXPECT_EQ(message_of([] { parse("\"1\"").number(); }), "expected a number, found a string");
  EXPECT_EQ(message_of([] { parse("1").string(); }), "expected a string, found a whole number");
  EXPECT_EQ(message_of([] { parse("{}").array(); }), "expected a list, found an object");
  EXPECT_EQ(message_of([] { parse("[]").object(); }), "expected an object, found a list");
  EXPECT_EQ(message_of([] { parse("null").boolean(); }), "expected true or false, found null");
}

TEST(Json, BuildsValues) {
  Json value;
  value.set("a", 1);
  value.set("b", "x");
  value.set("a", 2.5);
  Json list;
  list.push_back(true);
  list.push_back(Json());
  value.set("l", std::move(list));
  EXPECT_EQ(value.dump(), R"({"a":2.5,"b":"x","l":[true,null]})");
  EXPECT_EQ(value, parse(value.dump()));
  EXPECT_FALSE(value == parse(R"({"a":2.5,"b":"x","l":[true,false]})"));
}

}  // namespace
}  // namespace lathe
