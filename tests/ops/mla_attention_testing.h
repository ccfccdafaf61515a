// Tensors of one attention call, and their comparison with the reference.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cases/mla_attention_cases.h"
#include "ops/mla_attention.h"
#include "ops/mla_attention_reference.h"
#include "ops/op_testing.h"

namespace lathe::testing {

// Inputs and gradients as the model has them: parts of fused tensors, with gaps between their rows.
struct AttentionTensors {
  AttentionTensors(const cases::MlaAttentionCase& c, DType dtype)
      : shape(c),
        q(tokens(dtype, c.s_q, c.h, c.dn + c.dr, 1)),
        kv(tokens(dtype, c.s_k, c.h, c.dn + c.dv, 3)),
        k_pe(tokens(dtype, c.s_k, 1, c.dr, 5)),
        out(tokens(dtype, c.s_q, c.h, c.dv, 2)),
        dout(tokens(dtype, c.s_q, c.h, c.dv, 0)),
        dq(tokens(dtype, c.s_q, c.h, c.dn + c.dr, 3)),
        dkv(tokens(dtype, c.s_k, c.h, c.dn + c.dv, 1)),
        dk_pe(tokens(dtype, c.s_k, 1, c.dr, 7)),
        lse(stats(dtype)),
        dlse(stats(dtype)),
        cu_q(offsets(c.q_lengths)),
        cu_k(offsets(c.k_lengths)),
        scale(1 / std::sqrt(static_cast<double>(c.dn + c.dr))) {
    q.fill_normal(1);
    kv.fill_normal(2);
    k_pe.fill_normal(3);
    dout.fill_normal(4);
    dlse.fill_normal(5);
  }

  ops::MlaAttentionForward forward() const {
    ops::MlaAttentionForward op;
    op.q_nope = first(q, shape.dn);
    op.q_pe = last(q, shape.dr);
    op.k_nope = first(kv, shape.dn);
    op.k_pe = k_pe;
    op.v = last(kv, shape.dv);
    op.out = out;
    op.lse = lse;
    if (shape.packed()) {
      op.cu_seqlens_q = cu_q;
      op.cu_seqlens_k = cu_k;
    }
    op.softmax_scale = scale;
    op.causal = shape.causal;
    return op;
  }
  ops::MlaAttentionBackward backward() const {
    const ops::MlaAttentionForward f = forward();
    ops::MlaAttentionBackward op;
    op.q_nope = f.q_nope;
    op.q_pe = f.q_pe;
    op.k_nope = f.k_nope;
    op.k_pe = f.k_pe;
    op.v = f.v;
    op.out = out;
    op.lse = lse;
    op.dout = dout;
    op.dlse = dlse;
    op.dq_nope = first(dq, shape.dn);
    op.dq_pe = last(dq, shape.dr);
    op.dk_nope = first(dkv, shape.dn);
    op.dk_pe = dk_pe;
    op.dv = last(dkv, shape.dv);
    op.cu_seqlens_q = f.cu_seqlens_q;
    op.cu_seqlens_k = f.cu_seqlens_k;
    op.softmax_scale = scale;
    op.causal = shape.causal;
    return op;
  }
  void run(const ops::Context& context) const {
    ops::mla_attention_forward(context, forward());
    ops::mla_attention_backward(context, backward());
  }

  AttentionValues values() const {
    const ops::MlaAttentionBackward op = backward();
    return {values_of(op.q_nope), values_of(op.q_pe), values_of(op.k_nope), values_of(op.k_pe),
            values_of(op.v),      dout.values(),      dlse.values()};
  }
  AttentionResults results() const {
    const ops::MlaAttentionBackward op = backward();
    return {out.values(),          lse.values(),        values_of(op.dq_nope), values_of(op.dq_pe),
            values_of(op.dk_nope), values_of(op.dk_pe), values_of(op.dv)};
  }
  bool gaps_are_intact() const {
    return out.padding_is_intact() && dq.padding_is_intact() && dkv.padding_is_intact() && dk_pe.padding_is_intact();
  }

  static TensorView first(const TensorView& view, std::int64_t d) { return view.slice(view.rank - 1, 0, d); }
  static TensorView last(const TensorView& view, std::int64_t d) {
    return view.slice(view.rank - 1, view.shape[static_cast<std::size_t>(view.rank - 1)] - d, d);
  }
  TestTensor tokens(DType dtype, std::int64_t s, std::int64_t heads, std::int64_t d, std::int64_t gap) const {
    return shape.packed() ? TestTensor(dtype, {s, heads, d}, gap) : TestTensor(dtype, {shape.b, s, heads, d}, gap);
  }
  TestTensor stats(DType dtype) const {
    const DType kept = at_least_f32(dtype);
    return shape.packed() ? TestTensor(kept, {shape.h, shape.s_q}) : TestTensor(kept, {shape.b, shape.h, shape.s_q});
  }
  static TestTensor offsets(const std::vector<std::int32_t>& lengths) {
    std::vector<double> values{0};
    for (const std::int32_t length : lengths) values.push_back(values.back() + length);
    TestTensor tensor(DType::i32, {static_cast<std::int64_t>(values.size())});
    tensor.set(values);
    return tensor;
  }

  cases::MlaAttentionCase shape;
  TestTensor q, kv, k_pe, out, dout, dq, dkv, dk_pe, lse, dlse, cu_q, cu_k;
  double scale;
};

inline void expect_close(const AttentionResults& actual, const AttentionResults& expected, double relative,
                         double absolute) {
  EXPECT_TRUE(is_close(actual.out, expected.out, relative, absolute)) << "out";
  EXPECT_TRUE(is_close(actual.lse, expected.lse, relative, absolute)) << "lse";
  EXPECT_TRUE(is_close(actual.dq_nope, expected.dq_nope, relative, absolute)) << "dq_nope";
  EXPECT_TRUE(is_close(actual.dq_pe, expected.dq_pe, relative, absolute)) << "dq_pe";
  EXPECT_TRUE(is_close(actual.dk_nope, expected.dk_nope, relative, absolute)) << "dk_nope";
  EXPECT_TRUE(is_close(actual.dk_pe, expected.dk_pe, relative, absolute)) << "dk_pe";
  EXPECT_TRUE(is_close(actual.dv, expected.dv, relative, absolute)) << "dv";
}

inline void expect_as_reference(const AttentionTensors& tensors, double relative, double absolute) {
  const AttentionValues values = tensors.values();
  const AttentionReference reference(tensors.shape, tensors.scale, values);
  expect_close(tensors.results(), reference.results(), relative, absolute);
  EXPECT_TRUE(tensors.gaps_are_intact());
}

}  // namespace lathe::testing
