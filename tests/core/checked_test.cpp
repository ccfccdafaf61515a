#include "core/checked.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "core/log.h"
#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

TEST(Checked, ThrowsInsteadOfWrapping) {
  EXPECT_EQ(checked_mul<std::int64_t>(std::int64_t{1} << 31, std::int64_t{1} << 31), std::int64_t{1} << 62);
  EXPECT_EQ(message_of([] { checked_mul<std::int64_t>(std::int64_t{1} << 32, std::int64_t{1} << 31); }),
            "4294967296 x 2147483648 does not fit in 64 bits");
  EXPECT_EQ(checked_add(kMax, std::int64_t{0}), kMax);
  EXPECT_EQ(message_of([] { checked_add(kMax, std::int64_t{1}); }), "9223372036854775807 + 1 does not fit in 64 bits");
  EXPECT_NE(message_of([] { checked_mul<std::uint64_t>(~std::uint64_t{0}, 2); }), "nothing was thrown");
}

TEST(Checked, NarrowKeepsTheValueOrThrows) {
  EXPECT_EQ(narrow<std::int32_t>(std::int64_t{-5}), -5);
  EXPECT_EQ(message_of([] { narrow<std::int32_t>(std::int64_t{1} << 31); }), "2147483648 does not fit in 32 bits");
  EXPECT_EQ(message_of([] { narrow<std::uint64_t>(-1); }), "-1 does not fit in 64 bits");
  EXPECT_EQ(narrow<std::int32_t>(std::numeric_limits<std::int32_t>::min()), std::numeric_limits<std::int32_t>::min());
}

TEST(Error, InputErrorsAreErrorsOfTheirOwn) {
  EXPECT_EQ(message_of<Error>([] { refuse("{} is not {}", 1, "two"); }), "1 is not two");
  EXPECT_THROW(require(false, "no"), InputError);
  EXPECT_NO_THROW(require(true, "no"));
  EXPECT_NO_THROW(check(true, "no"));
  try {
    check(false, "{}", 3);
    FAIL();
  } catch (const InputError&) {
    FAIL() << "check is not about input";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "3");
  }
}

TEST(Log, SeparatesThousands) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(-123456), "-123,456");
  EXPECT_EQ(with_commas(1234567), "1,234,567");
  EXPECT_EQ(with_commas(std::numeric_limits<long long>::min()), "-9,223,372,036,854,775,808");
}

}  // namespace
}  // namespace lathe
