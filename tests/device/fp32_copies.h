// The CPU's ops on bf16 tensors, by way of fp32: inputs are widened, results rounded, once an op.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "backends/register.h"
#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/global_norm.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/load_balance.h"
#include "ops/mla_attention.h"
#include "ops/permute.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/router.h"
#include "ops/swiglu.h"

namespace lathe::testing {

using Views = std::vector<TensorView*>;

// The tensors of an op that may be bf16.
inline Views views(ops::EmbeddingForward& p) { return {&p.table, &p.out}; }
inline Views views(ops::EmbeddingBackward& p) { return {&p.dout}; }
inline Views views(ops::RmsNormForward& p) { return {&p.x, &p.residual, &p.weight, &p.out, &p.sum}; }
inline Views views(ops::RmsNormBackward& p) { return {&p.dout, &p.x, &p.weight, &p.dsum, &p.dx}; }
inline Views views(ops::LinearForward& p) { return {&p.x, &p.weight, &p.bias, &p.out}; }
inline Views views(ops::LinearBackward& p) { return {&p.dout, &p.x, &p.weight, &p.dx}; }
inline Views views(ops::GroupedLinearForward& p) { return {&p.x, &p.weight, &p.out}; }
inline Views views(ops::GroupedLinearBackward& p) { return {&p.dout, &p.x, &p.weight, &p.dx}; }
inline Views views(ops::SwigluForward& p) { return {&p.gate_up, &p.out}; }
inline Views views(ops::SwigluBackward& p) { return {&p.dout, &p.gate_up, &p.dgate_up}; }
inline Views views(ops::Rope& p) { return {&p.x, &p.out}; }
inline Views views(ops::MlaAttentionForward& p) { return {&p.q_nope, &p.q_pe, &p.k_nope, &p.k_pe, &p.v, &p.out}; }
inline Views views(ops::MlaAttentionBackward& p) {
  return {&p.q_nope, &p.q_pe,    &p.k_nope, &p.k_pe,    &p.v,  &p.out,
          &p.dout,   &p.dq_nope, &p.dq_pe,  &p.dk_nope, &p.dv, &p.dk_pe};
}
inline Views views(ops::CrossEntropy& p) { return {&p.dlogits}; }
inline Views views(ops::PermuteForward& p) { return {&p.x, &p.out}; }
inline Views views(ops::PermuteBackward& p) { return {&p.dout, &p.dx}; }
inline Views views(ops::UnpermuteForward& p) { return {&p.x, &p.residual, &p.shared, &p.out}; }
inline Views views(ops::UnpermuteBackward& p) { return {&p.dout, &p.x, &p.dx}; }
template <typename Params>
Views views(Params&) {
  return {};
}

template <typename Visit>
void for_elements(const TensorView& view, const Visit& visit, std::int64_t offset = 0, int dim = 0) {
  if (dim == view.rank) return visit(offset);
  const auto d = static_cast<std::size_t>(dim);
  for (std::int64_t i = 0; i < view.shape[d]; ++i) for_elements(view, visit, offset + i * view.strides[d], dim + 1);
}

// fp32 memory behind bf16 views: one copy for equal views, so that results may take the place of inputs.
class Fp32Copies {
 public:
  explicit Fp32Copies(const Views& all) {
    for (TensorView* view : all)
      if (*view && view->dtype == DType::bf16) widen(*view);
  }

  void round_back() const {
    for (const Copy& copy : copies_) {
      std::size_t next = 0;
      for_elements(copy.view, [&](std::int64_t at) { copy.view.as<bf16>()[at] = bf16(copy.values[next++]); });
    }
  }

 private:
  struct Copy {
    TensorView view;  // the bf16 one
    std::vector<float> values;
  };

  void widen(TensorView& view) {
    auto copy = std::ranges::find_if(copies_, [&](const Copy& other) {
      return other.view.data == view.data && other.view.same_shape(view) && other.view.strides == view.strides;
    });
    if (copy == copies_.end()) {
      copy = copies_.insert(copy, Copy{view, {}});
      for_elements(view, [&](std::int64_t at) { copy->values.push_back(static_cast<float>(view.as<bf16>()[at])); });
    }
    const std::span shape(view.shape.data(), static_cast<std::size_t>(view.rank));
    view = TensorView::contiguous(copy->values.data(), DType::f32, shape, view.device);
  }

  std::deque<Copy> copies_;
};

template <typename Params>
void run_through_fp32(ops::Implementation<Params> op, const ops::Context& context, Params params) {
  const Fp32Copies copies(views(params));
  op(context, params);
  copies.round_back();
}

}  // namespace lathe::testing
