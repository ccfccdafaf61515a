#include "ops/work.h"

#include "ops/adamw.h"
#include "ops/embedding.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/mla_attention.h"
#include "ops/op_testing.h"
#include "ops/permute.h"
#include "ops/rms_norm.h"
#include "ops/swiglu.h"

namespace lathe::testing {
namespace {

using ops::work_of;

// A tensor that is never read: work comes from shapes.
TensorView view(DType dtype, std::initializer_list<std::int64_t> shape) {
  static std::byte somewhere;
  return TensorView::contiguous(&somewhere, dtype, shape);
}
TensorView f32(std::initializer_list<std::int64_t> shape) { return view(DType::f32, shape); }
TensorView bf16s(std::initializer_list<std::int64_t> shape) { return view(DType::bf16, shape); }
TensorView i32(std::initializer_list<std::int64_t> shape) { return view(DType::i32, shape); }

void expect_work(const Work& work, double flops, double bytes) {
  EXPECT_EQ(work.flops, flops);
  EXPECT_EQ(work.bytes, bytes);
}

TEST(WorkOf, LinearLayers) {
  const ops::LinearForward plain{.x = bf16s({5, 3}), .weight = bf16s({7, 3}), .bias = {}, .out = f32({5, 7})};
  expect_work(work_of(plain), 2 * 5 * 3 * 7, 2 * (15 + 21) + 4 * 35);
  ops::LinearForward more = plain;
  more.bias = bf16s({7});
  more.accumulate = true;
  expect_work(work_of(more), 2 * 5 * 3 * 7, 2 * (15 + 21 + 7) + 2 * 4 * 35);

  ops::LinearBackward both{.dout = bf16s({5, 7}),
                           .x = bf16s({5, 3}),
                           .weight = bf16s({7, 3}),
                           .dx = bf16s({5, 3}),
                           .dweight = f32({7, 3}),
                           .dbias = f32({7})};
  expect_work(work_of(both), 4 * 5 * 3 * 7, 2 * (35 + 15 + 21 + 15) + 2 * 4 * (21 + 7));
  both.accumulate_dx = true;
  expect_work(work_of(both), 4 * 5 * 3 * 7, 2 * (35 + 15 + 21 + 2 * 15) + 2 * 4 * (21 + 7));
  // What one gradient needs is not read for the other.
  ops::LinearBackward of_x = both;
  of_x.dweight = of_x.dbias = {};
  expect_work(work_of(of_x), 2 * 5 * 3 * 7, 2 * (35 + 21 + 2 * 15));
  ops::LinearBackward of_weight = both;
  of_weight.dx = of_weight.dbias = {};
  expect_work(work_of(of_weight), 2 * 5 * 3 * 7, 2 * (35 + 15) + 2 * 4 * 21);
}

TEST(WorkOf, GroupedLinearLayers) {
  const TensorView weight = bf16s({4, 7, 3});
  expect_work(work_of(ops::GroupedLinearForward{
                  .x = bf16s({5, 3}), .weight = weight, .offsets = i32({5}), .out = bf16s({5, 7})}),
              2 * 5 * 3 * 7, 2 * (15 + 84 + 35) + 4 * 5);
  expect_work(work_of(ops::GroupedLinearBackward{.dout = bf16s({5, 7}),
                                                 .x = bf16s({5, 3}),
                                                 .weight = weight,
                                                 .offsets = i32({5}),
                                                 .dx = bf16s({5, 3}),
                                                 .dweight = f32({4, 7, 3})}),
              4 * 5 * 3 * 7, 2 * (35 + 15 + 84 + 15) + 4 * 5 + 2 * 4 * 84);
}

TEST(WorkOf, Attention) {
  constexpr std::int64_t b = 2, s = 6, h = 3, dn = 4, dr = 2, dv = 5;
  ops::MlaAttentionForward dense;
  dense.q_nope = dense.k_nope = f32({b, s, h, dn});
  dense.q_pe = f32({b, s, h, dr});
  dense.k_pe = f32({b, s, 1, dr});
  dense.v = dense.out = f32({b, s, h, dv});
  dense.lse = f32({b, h, s});
  const double elements = b * s * (h * (2 * dn + dr + 2 * dv) + dr + h);
  const double flops = 2.0 * b * h * s * s * (dn + dr + dv);
  expect_work(work_of(dense), flops / 2, 4 * elements);
  dense.causal = false;
  expect_work(work_of(dense), flops, 4 * elements);
  // q_nope, k_nope and v as slices of a longer row: what lies between is not read.
  dense.q_nope = f32({b, s, h, dn + dr}).slice(3, 0, dn);
  expect_work(work_of(dense), flops, 4 * elements);

  ops::MlaAttentionForward packed = dense;
  packed.q_nope = packed.k_nope = f32({b * s, h, dn});
  packed.q_pe = f32({b * s, h, dr});
  packed.k_pe = f32({b * s, 1, dr});
  packed.v = packed.out = f32({b * s, h, dv});
  packed.lse = f32({h, b * s});
  packed.cu_seqlens_q = packed.cu_seqlens_k = i32({b + 1});
  expect_work(work_of(packed), flops, 4 * (elements + 2 * (b + 1)));

  ops::MlaAttentionBackward backward;
  backward.q_nope = backward.k_nope = backward.dq_nope = backward.dk_nope = f32({b, s, h, dn});
  backward.q_pe = backward.dq_pe = f32({b, s, h, dr});
  backward.k_pe = backward.dk_pe = f32({b, s, 1, dr});
  backward.v = backward.dv = backward.out = backward.dout = f32({b, s, h, dv});
  backward.lse = f32({b, h, s});
  expect_work(work_of(backward), 2.5 * flops / 2, 4.0 * b * s * (h * (4 * dn + 2 * dr + 4 * dv) + 2 * dr + h));
}

TEST(WorkOf, OpsThatOnlyMoveElements) {
  ops::RmsNormForward norm{.x = bf16s({5, 8}), .residual = {}, .weight = bf16s({8}), .out = bf16s({5, 8})};
  expect_work(work_of(norm), 0, 2 * (40 + 8 + 40));
  norm.residual = norm.sum = norm.x;
  norm.rstd = f32({5});
  expect_work(work_of(norm), 0, 2 * (4 * 40 + 8) + 4 * 5);
  expect_work(work_of(ops::SwigluForward{.gate_up = f32({5, 8}), .out = f32({5, 4})}), 0, 4 * (40 + 20));
  ops::PermuteBackward permute{.dout = bf16s({10, 8}), .row_map = i32({5, 2}), .dx = bf16s({5, 8})};
  expect_work(work_of(permute), 0, 2 * (80 + 40) + 4 * 10);
  permute.accumulate = true;
  expect_work(work_of(permute), 0, 2 * (80 + 2 * 40) + 4 * 10);
  ops::AdamW adamw{.parameter = f32({9}), .gradient = f32({9}), .m = f32({9}), .v = f32({9}), .rounded = {}};
  expect_work(work_of(adamw), 0, 7 * 4 * 9);
  adamw.rounded = bf16s({9});
  expect_work(work_of(adamw), 0, (7 * 4 + 2) * 9);
}

TEST(WorkOf, AnEmbeddingReadsTheRowsThatItLooksUp) {
  expect_work(work_of(ops::EmbeddingForward{.tokens = i32({5}), .table = bf16s({100, 8}), .out = bf16s({5, 8})}), 0,
              4 * 5 + 2 * 2 * 40);
  const ops::EmbeddingBackward few{.tokens = i32({5}), .dout = bf16s({5, 8}), .dtable = f32({100, 8})};
  expect_work(work_of(few), 0, 4 * 5 + 2 * 40 + 2 * 4 * 40);
  const ops::EmbeddingBackward many{.tokens = i32({5}), .dout = bf16s({5, 8}), .dtable = f32({3, 8})};
  expect_work(work_of(many), 0, 4 * 5 + 2 * 40 + 2 * 4 * 24);
}

TEST(WorkRecorder, HearsOfEachOpCopyAndFill) {
  CpuContext context;
  Device& device = context.device();
  TestTensor gate_up(DType::f32, {2, 6});
  gate_up.fill_normal(1);
  TestTensor out(DType::f32, {2, 3}), copied(DType::f32, {3});
  std::array<float, 3> host{};
  const TensorView row = TensorView::contiguous(host.data(), DType::f32, {3});
  const ops::SwigluForward op{.gate_up = gate_up, .out = out};
  WorkRecorder recorder(make_timeline(DeviceKind::cpu, {}));
  ops::swiglu_forward(*context, op);  // not yet
  device.set_recorder(&recorder);
  ops::swiglu_forward(*context, op);
  device.fill_zero(row, {});
  ops::swiglu_forward(*context, op);
  device.copy(copied, row, {});
  device.fill_zero(row.slice(0, 0, 0), {});  // nothing to do
  device.set_recorder(nullptr);
  ops::swiglu_forward(*context, op);  // no longer

  const std::vector<WorkRecorder::Class> classes = recorder.take();
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].name, "swiglu_forward");
  EXPECT_EQ(classes[0].calls, 2);
  expect_work(classes[0].work, 0, 2 * 4 * (12 + 6));
  EXPECT_EQ(classes[1].name, "copies and fills");
  EXPECT_EQ(classes[1].calls, 2);
  expect_work(classes[1].work, 0, 4 * 3 + 2 * 4 * 3);
  for (const WorkRecorder::Class& each : classes) EXPECT_GE(each.microseconds, 0);
  EXPECT_TRUE(recorder.take().empty());
}

}  // namespace
}  // namespace lathe::testing
