#include "checkpoint/elements.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;

template <typename To, typename From>
To converted(From value) {
  To result{};
  convert_elements(&result, dtype_of<To>, &value, dtype_of<From>, 1);
  return result;
}

TEST(Elements, ConvertsBetweenFloatingTypes) {
  EXPECT_EQ(converted<double>(0.1F), static_cast<double>(0.1F));
  EXPECT_EQ(converted<float>(0.1), 0.1F);
  EXPECT_EQ(converted<bf16>(1.0F).bits, 0x3f80);
  EXPECT_EQ(converted<bf16>(-2.5).bits, 0xc020);
  EXPECT_EQ(converted<float>(bf16(-2.5F)), -2.5F);
  EXPECT_EQ(converted<double>(bf16(-2.5F)), -2.5);
  EXPECT_EQ(converted<bf16>(1.00390625F).bits, 0x3f80);  // half way: to even, down
  EXPECT_EQ(converted<bf16>(1.01171875F).bits, 0x3f82);  // half way: to even, up
  EXPECT_TRUE(std::isnan(converted<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(converted<float>(1e300), std::numeric_limits<float>::infinity());
  EXPECT_EQ(converted<std::int64_t>(std::int64_t{-7}), -7);
}

TEST(Elements, RefusesIntegersAsFloats) {
  EXPECT_FALSE(is_convertible(DType::i32, DType::i64));
  EXPECT_FALSE(is_convertible(DType::f32, DType::i32));
  EXPECT_TRUE(is_convertible(DType::bf16, DType::f64));
  std::int32_t from = 1;
  float to = 0;
  EXPECT_EQ(message_of<Error>([&] { convert_elements(&to, DType::f32, &from, DType::i32, 1); }),
            "i32 elements cannot become f32");
}

TEST(Elements, ReadsUnalignedBytes) {
  std::vector<std::byte> bytes(3 * sizeof(double) + 1);
  const double values[] = {1.5, -2.25, 1e-3};
  std::memcpy(bytes.data() + 1, values, sizeof(values));
  std::vector<float> out(3, -1.0F);
  convert_elements(out.data(), DType::f32, bytes.data() + 1, DType::f64, 3);
  EXPECT_EQ(out, (std::vector<float>{1.5F, -2.25F, 1e-3F}));
}

std::vector<std::vector<float>> runs_of(const TensorView& view) {
  std::vector<std::vector<float>> runs;
  for_each_run(view, [&](std::byte* data, std::size_t count) {
    const auto* values = reinterpret_cast<const float*>(data);
    runs.emplace_back(values, values + count);
  });
  return runs;
}

TEST(Elements, MergesContiguousDimensions) {
  std::vector<float> data(24);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const auto view = TensorView::contiguous(data.data(), DType::f32, {2, 3, 4});
  EXPECT_EQ(runs_of(view).size(), 1U);
  EXPECT_EQ(runs_of(view.slice(2, 1, 2)),
            (std::vector<std::vector<float>>{{1, 2}, {5, 6}, {9, 10}, {13, 14}, {17, 18}, {21, 22}}));
  EXPECT_EQ(runs_of(view.slice(1, 1, 2)),
            (std::vector<std::vector<float>>{{4, 5, 6, 7, 8, 9, 10, 11}, {16, 17, 18, 19, 20, 21, 22, 23}}));
  EXPECT_EQ(runs_of(view.slice(1, 2, 1).slice(0, 1, 1)), (std::vector<std::vector<float>>{{20, 21, 22, 23}}));
  EXPECT_EQ(runs_of(view.slice(1, 0, 0)).size(), 0U);
  EXPECT_EQ(runs_of(TensorView::contiguous(data.data() + 5, DType::f32, {})), (std::vector<std::vector<float>>{{5}}));
}

TEST(Elements, RefusesWhatItCannotWalk) {
  std::vector<float> data(24);
  const auto view = TensorView::contiguous(data.data(), DType::f32, {6, 4});
  EXPECT_EQ(message_of<Error>([&] { runs_of(view.select(1, 0)); }), "f32 [6] strides [4] has a strided last dimension");
  const auto remote = TensorView::contiguous(data.data(), DType::f32, {6, 4}, DeviceKind::cuda);
  EXPECT_EQ(message_of<Error>([&] { runs_of(remote); }), "f32 [6, 4] is not in the CPU's memory");
}

}  // namespace
}  // namespace lathe
