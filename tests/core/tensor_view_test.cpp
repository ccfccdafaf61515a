#include "core/tensor_view.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;

// A [2, 3, 4] tensor whose element [i, j, k] is 12 i + 4 j + k.
class TensorViewTest : public testing::Test {
 protected:
  TensorViewTest() { std::iota(data_.begin(), data_.end(), 0.0F); }

  static float at(const TensorView& view, std::initializer_list<std::int64_t> index) {
    std::int64_t offset = 0;
    std::size_t d = 0;
    for (const std::int64_t i : index) offset += i * view.strides[d++];
    return view.as<float>()[offset];
  }

  std::vector<float> data_ = std::vector<float>(24);
  TensorView view_ = TensorView::contiguous(data_.data(), DType::f32, {2, 3, 4});
};

TEST_F(TensorViewTest, ContiguousStrides) {
  EXPECT_EQ(view_.describe(), "f32 [2, 3, 4]");
  EXPECT_EQ(view_.strides[0], 12);
  EXPECT_EQ(view_.strides[1], 4);
  EXPECT_EQ(view_.strides[2], 1);
  EXPECT_EQ(view_.numel(), 24);
  EXPECT_EQ(view_.bytes(), 96U);
  EXPECT_TRUE(view_.is_contiguous());
  EXPECT_TRUE(view_);
  EXPECT_FALSE(TensorView());
}

TEST_F(TensorViewTest, RankZeroAndEmptyTensors) {
  const auto scalar = TensorView::contiguous(data_.data(), DType::f64, {});
  EXPECT_EQ(scalar.numel(), 1);
  EXPECT_EQ(scalar.describe(), "f64 []");
  const auto empty = TensorView::contiguous(nullptr, DType::bf16, {0, 3});
  EXPECT_EQ(empty.numel(), 0);
  EXPECT_EQ(empty.bytes(), 0U);
  EXPECT_TRUE(empty.is_contiguous());
}

TEST_F(TensorViewTest, SliceSelectSplit) {
  const auto slice = view_.slice(1, 1, 2);
  EXPECT_EQ(slice.describe(), "f32 [2, 2, 4] strides [12, 4, 1]");
  EXPECT_FALSE(slice.is_contiguous());
  EXPECT_EQ(at(slice, {1, 1, 3}), 23.0F);
  EXPECT_TRUE(view_.slice(0, 1, 1).is_contiguous());

  const auto column = view_.select(2, 3);
  EXPECT_EQ(column.rank, 2);
  EXPECT_EQ(column.describe(), "f32 [2, 3] strides [12, 4]");
  EXPECT_EQ(at(column, {1, 2}), 23.0F);
  EXPECT_EQ(at(view_.select(0, 1), {2, 0}), 20.0F);

  const auto halves = view_.slice(2, 0, 2).select(1, 2).slice(0, 0, 2).split(1, 1);
  EXPECT_EQ(halves.rank, 3);
  EXPECT_EQ(at(halves, {1, 1, 0}), 21.0F);
  const auto pairs = view_.split(2, 2);
  EXPECT_EQ(pairs.describe(), "f32 [2, 3, 2, 2]");
  EXPECT_EQ(at(pairs, {1, 2, 1, 0}), 22.0F);
}

TEST_F(TensorViewTest, Reshape) {
  EXPECT_EQ(at(view_.reshape({6, 4}), {5, 3}), 23.0F);
  EXPECT_EQ(message_of<Error>([&] { view_.reshape({5, 5}); }), "f32 [2, 3, 4] cannot take the shape f32 [5, 5]");
  EXPECT_EQ(message_of<Error>([&] { view_.select(2, 0).reshape({6}); }),
            "only a contiguous tensor can be reshaped, not f32 [2, 3] strides [12, 4]");
}

TEST_F(TensorViewTest, SameShape) {
  EXPECT_TRUE(view_.same_shape(TensorView::contiguous(nullptr, DType::f64, {2, 3, 4})));
  EXPECT_FALSE(view_.same_shape(TensorView::contiguous(nullptr, DType::f32, {2, 3, 5})));
  EXPECT_FALSE(view_.same_shape(TensorView::contiguous(nullptr, DType::f32, {2, 3})));
}

TEST_F(TensorViewTest, ChecksEveryIndex) {
  EXPECT_EQ(message_of<Error>([&] { view_.slice(1, 2, 2); }),
            "slice [2, 2 + 2) of dimension 1 is outside f32 [2, 3, 4]");
  EXPECT_NE(message_of<Error>([&] { view_.slice(1, -1, 1); }), "nothing was thrown");
  EXPECT_NE(message_of<Error>([&] { view_.slice(3, 0, 1); }), "nothing was thrown");
  EXPECT_NE(message_of<Error>([&] { view_.slice(0, 1, std::numeric_limits<std::int64_t>::max()); }),
            "nothing was thrown");
  EXPECT_NE(message_of<Error>([&] { view_.select(0, 2); }), "nothing was thrown");
  EXPECT_EQ(message_of<Error>([&] { view_.split(1, 2); }), "dimension 1 of f32 [2, 3, 4] cannot be split by 2");
  EXPECT_NE(message_of<Error>([&] { view_.split(1, 0); }), "nothing was thrown");
  EXPECT_NE(message_of<Error>([&] { view_.split(2, 2).split(0, 1); }), "nothing was thrown");
  EXPECT_EQ(message_of<Error>([&] { view_.as<double>(); }), "tensor is f32 [2, 3, 4], expected f64");
}

TEST_F(TensorViewTest, RefusesImpossibleShapes) {
  EXPECT_EQ(message_of<Error>([] {
              TensorView::contiguous(nullptr, DType::f32, {1, 2, 3, 4, 5});
            }),
            "tensor of shape [1, 2, 3, 4, 5] has more than 4 dimensions");
  EXPECT_EQ(message_of<Error>([] {
              TensorView::contiguous(nullptr, DType::f32, {2, -1});
            }),
            "tensor of shape [2, -1] has a negative dimension");
  const std::int64_t large = std::int64_t{1} << 40;
  EXPECT_NE(message_of<Error>([&] {
              TensorView::contiguous(nullptr, DType::f32, {large, large});
            }),
            "nothing was thrown");
}

}  // namespace
}  // namespace lathe
