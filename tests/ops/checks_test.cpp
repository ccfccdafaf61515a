#include "ops/checks.h"

#include "ops/op_testing.h"
#include "ops/swiglu.h"

namespace lathe::testing {
namespace {

template <typename Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Checks, NameWhatClashes) {
  CpuContext context;
  const TestTensor tensor(DType::f32, {2, 3}, 1);
  const TensorView& view = tensor.view();
  EXPECT_EQ(message_of([&] { ops::check_tensor("op", "x", view, *context, DType::f32, {2, 3}); }), "accepted");
  EXPECT_EQ(message_of([&] {
              ops::check_shape("op", "x", view, {3, 2});
            }),
            "op: x is f32 [2, 3] strides [4, 1], expected [3, 2]");
  EXPECT_EQ(message_of([&] { ops::check_shape("op", "x", {}, {3, 2}); }), "op: x is not given, expected [3, 2]");
  EXPECT_EQ(message_of([&] { ops::check_rank("op", "x", view, 3); }),
            "op: x is f32 [2, 3] strides [4, 1], expected 3 dimensions");
  EXPECT_EQ(message_of([&] { ops::check_dtype("op", "x", view, DType::i32); }),
            "op: x is f32 [2, 3] strides [4, 1], expected i32");
  EXPECT_EQ(message_of([&] { ops::check_contiguous("op", "x", view); }),
            "op: x is f32 [2, 3] strides [4, 1], expected contiguous elements");
  EXPECT_EQ(message_of([&] { ops::check_contiguous_last("op", "x", view); }), "accepted");
  EXPECT_EQ(message_of([&] { ops::check_absent("op", "x", {}, "y is given"); }), "accepted");
  TensorView columns = view;
  std::swap(columns.shape[0], columns.shape[1]);
  std::swap(columns.strides[0], columns.strides[1]);
  EXPECT_EQ(message_of([&] { ops::check_contiguous_last("op", "x", columns); }),
            "op: x is f32 [3, 2] strides [1, 4], expected a contiguous last dimension");
  TensorView elsewhere = view;
  elsewhere.device = DeviceKind::cuda;
  EXPECT_EQ(message_of([&] { ops::check_device("op", "x", elsewhere, *context); }), "op: x is on CUDA, expected CPU");
}

TEST(Checks, TensorWithoutElementsNeedsNoData) {
  const TensorView empty = TensorView::contiguous(nullptr, DType::f32, {0, 3});
  EXPECT_EQ(message_of([&] { ops::check_shape("op", "x", empty, {0, 3}); }), "accepted");
}

TEST(Checks, OpWithoutImplementationFailsByName) {
  CpuContext cpu;
  const ops::Table empty;
  ops::Context context = *cpu;
  context.table = &empty;
  TestTensor gate_up(DType::f32, {2, 6});
  TestTensor out(DType::f32, {2, 3});
  EXPECT_EQ(message_of([&] { ops::swiglu_forward(context, {.gate_up = gate_up, .out = out}); }),
            "swiglu_forward has no implementation on CPU");
}

}  // namespace
}  // namespace lathe::testing
