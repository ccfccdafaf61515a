#include "ops/mla_attention.h"

#include <cmath>

#include "core/error.h"
#include "ops/checks.h"

namespace lathe::ops {
namespace {

constexpr std::string_view kForward = "mla_attention_forward";
constexpr std::string_view kBackward = "mla_attention_backward";

// The sizes that all tensors of one call share; every check names the op and both sides of a clash.
class Checker {
 public:
  // Takes the sizes from the inputs, then checks the inputs.
  template <typename Op>
  Checker(std::string_view name, const Context& context, const Op& op, Checked checked)
      : name_(name), context_(context), checked_(checked), packed_(op.cu_seqlens_q), dtype_(op.q_nope.dtype) {
    check(packed_ == static_cast<bool>(op.cu_seqlens_k), "{}: cu_seqlens_{} is given without cu_seqlens_{}", name_,
          packed_ ? "q" : "k", packed_ ? "k" : "q");
    const int rank = packed_ ? 3 : 4;
    check_rank(name_, "q_nope", op.q_nope, rank);
    check_rank(name_, "q_pe", op.q_pe, rank);
    check_rank(name_, "k_nope", op.k_nope, rank);
    check_rank(name_, "v", op.v, rank);
    check_floating(name_, "q_nope", op.q_nope);
    const std::size_t token = packed_ ? 0 : 1;
    b_ = packed_ ? 0 : op.q_nope.shape[0];
    s_q_ = op.q_nope.shape[token];
    s_k_ = op.k_nope.shape[token];
    h_ = op.q_nope.shape[token + 1];
    dn_ = op.q_nope.shape[token + 2];
    dr_ = op.q_pe.shape[token + 2];
    dv_ = op.v.shape[token + 2];
    check(h_ >= 1 && dn_ >= 1 && dr_ >= 1 && dv_ >= 1,
          "{}: {} heads of dimensions {} (nope), {} (pe) and {} (v); each must be at least 1", name_, h_, dn_, dr_,
          dv_);
    check(std::isfinite(op.softmax_scale), "{}: softmax_scale is {}", name_, op.softmax_scale);
    queries("q_nope", op.q_nope, dn_);
    queries("q_pe", op.q_pe, dr_);
    keys("k_nope", op.k_nope, h_, dn_);
    keys("k_pe", op.k_pe, 1, dr_);
    keys("v", op.v, h_, dv_);
    if (packed_) sequences(op.cu_seqlens_q, op.cu_seqlens_k);
  }

  template <typename Op>
  MlaAttentionProblem problem(const Op& op) const {
    MlaAttentionProblem problem;
    problem.device = op.q_nope.device;
    problem.dtype = dtype_;
    problem.packed = packed_;
    problem.causal = op.causal;
    problem.sequences = packed_ ? op.cu_seqlens_q.shape[0] - 1 : b_;
    problem.s_q = s_q_;
    problem.s_k = s_k_;
    problem.h = h_;
    problem.dn = dn_;
    problem.dr = dr_;
    problem.dv = dv_;
    problem.softmax_scale = op.softmax_scale;
    return problem;
  }

  std::int64_t h() const { return h_; }
  std::int64_t dn() const { return dn_; }
  std::int64_t dr() const { return dr_; }
  std::int64_t dv() const { return dv_; }

  void queries(std::string_view tensor, const TensorView& view, std::int64_t d) const {
    tokens(tensor, view, s_q_, h_, d);
  }
  void keys(std::string_view tensor, const TensorView& view, std::int64_t heads, std::int64_t d) const {
    tokens(tensor, view, s_k_, heads, d);
  }
  void stats(std::string_view tensor, const TensorView& view) const {
    const DType dtype = dtype_ == DType::f64 ? DType::f64 : DType::f32;
    if (packed_)
      check_tensor(name_, tensor, view, context_, dtype, {h_, s_q_});
    else
      check_tensor(name_, tensor, view, context_, dtype, {b_, h_, s_q_});
  }
  // Nothing that is written may share elements through a stride of 0.
  void written(std::string_view tensor, const TensorView& view) const {
    for (std::size_t dim = 0; dim < static_cast<std::size_t>(view.rank); ++dim)
      if (view.shape[dim] > 1 && view.strides[dim] == 0)
        fail("{}: {} is written, but {} shares elements", name_, tensor, view.describe());
  }

 private:
  void tokens(std::string_view tensor, const TensorView& view, std::int64_t s, std::int64_t heads,
              std::int64_t d) const {
    if (packed_)
      check_tensor(name_, tensor, view, context_, dtype_, {s, heads, d});
    else
      check_tensor(name_, tensor, view, context_, dtype_, {b_, s, heads, d});
  }

  void sequences(const TensorView& q, const TensorView& k) const {
    cu_seqlens("cu_seqlens_q", q, s_q_);
    cu_seqlens("cu_seqlens_k", k, s_k_);
    check(q.shape[0] == k.shape[0], "{}: cu_seqlens_q has {} sequences, cu_seqlens_k {}", name_, q.shape[0] - 1,
          k.shape[0] - 1);
  }

  // The values are looked at where that is free: on the CPU. On a device it would wait for the stream.
  void cu_seqlens(std::string_view tensor, const TensorView& view, std::int64_t total) const {
    check_rank(name_, tensor, view, 1);
    check_tensor(name_, tensor, view, context_, DType::i32, {view.shape[0]});
    check(view.shape[0] >= 1, "{}: {} is empty, expected [n + 1] with a 0 first", name_, tensor);
    if (view.device != DeviceKind::cpu || checked_ == Checked::shapes) return;
    const auto* values = view.as<std::int32_t>();
    const std::int64_t last = view.shape[0] - 1;
    check(values[0] == 0, "{}: {} begins with {}, expected 0", name_, tensor, values[0]);
    for (std::int64_t i = 0; i < last; ++i)
      check(values[i] <= values[i + 1], "{}: {} falls from {} to {} at index {}", name_, tensor, values[i],
            values[i + 1], i + 1);
    check(values[last] == total, "{}: {} ends with {}, but {} tokens are packed", name_, tensor, values[last], total);
  }

  std::string_view name_;
  const Context& context_;
  Checked checked_;
  bool packed_;
  DType dtype_;
  std::int64_t b_ = 0, s_q_ = 0, s_k_ = 0, h_ = 0, dn_ = 0, dr_ = 0, dv_ = 0;
};

}  // namespace

MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionForward& op, Checked checked) {
  const Checker checker(kForward, context, op, checked);
  checker.queries("out", op.out, checker.dv());
  checker.stats("lse", op.lse);
  checker.written("out", op.out);
  checker.written("lse", op.lse);
  return checker.problem(op);
}

MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionBackward& op, Checked checked) {
  const Checker checker(kBackward, context, op, checked);
  checker.queries("out", op.out, checker.dv());
  checker.queries("dout", op.dout, checker.dv());
  checker.stats("lse", op.lse);
  if (op.dlse) checker.stats("dlse", op.dlse);
  checker.queries("dq_nope", op.dq_nope, checker.dn());
  checker.queries("dq_pe", op.dq_pe, checker.dr());
  checker.keys("dk_nope", op.dk_nope, checker.h(), checker.dn());
  checker.keys("dk_pe", op.dk_pe, 1, checker.dr());
  checker.keys("dv", op.dv, checker.h(), checker.dv());
  checker.written("dq_nope", op.dq_nope);
  checker.written("dq_pe", op.dq_pe);
  checker.written("dk_nope", op.dk_nope);
  checker.written("dk_pe", op.dk_pe);
  checker.written("dv", op.dv);
  MlaAttentionProblem problem = checker.problem(op);
  problem.deterministic = op.deterministic;
  return problem;
}

void mla_attention_forward(const Context& context, const MlaAttentionForward& op) {
  check_mla_attention(context, op);
  dispatch(kForward, &Table::mla_attention_forward, context, op);
}

void mla_attention_backward(const Context& context, const MlaAttentionBackward& op) {
  check_mla_attention(context, op);
  dispatch(kBackward, &Table::mla_attention_backward, context, op);
}

}  // namespace lathe::ops
