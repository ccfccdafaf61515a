#include "core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lathe {
namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

TEST(DType, SizesAndNames) {
  EXPECT_EQ(size_of(DType::bf16), sizeof(bf16));
  EXPECT_EQ(size_of(DType::f32), sizeof(float));
  EXPECT_EQ(size_of(DType::f64), sizeof(double));
  EXPECT_EQ(size_of(DType::i32), 4U);
  EXPECT_EQ(size_of(DType::i64), 8U);
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(name_of(dtype_of<std::int64_t>), "i64");
}

TEST(Bf16, KeepsEveryValueOfItsOwn) {
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    const float value = from_bits(upper << 16);
    const bf16 rounded(value);
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(static_cast<float>(rounded))) << upper;
    else
      ASSERT_EQ(rounded.bits, upper);
  }
}

TEST(Bf16, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(bf16(from_bits(0x3f807fff)).bits, 0x3f80);
  EXPECT_EQ(bf16(from_bits(0x3f808000)).bits, 0x3f80);
  EXPECT_EQ(bf16(from_bits(0x3f808001)).bits, 0x3f81);
  EXPECT_EQ(bf16(from_bits(0x3f818000)).bits, 0x3f82);
  EXPECT_EQ(bf16(from_bits(0xbf818000)).bits, 0xbf82);
  EXPECT_EQ(bf16(from_bits(0x00008000)).bits, 0x0000);  // the smallest numbers round as the others do
  EXPECT_EQ(bf16(from_bits(0x00008001)).bits, 0x0001);
  EXPECT_EQ(bf16(std::numeric_limits<float>::max()).bits, 0x7f80);  // infinity
}

TEST(Bf16, KeepsNaNWhoseUpperBitsAreZero) {
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(0x7f800001)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(0xffffffff)))));
}

}  // namespace
}  // namespace lathe
