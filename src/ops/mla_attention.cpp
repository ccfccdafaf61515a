#include "ops/mla_attention.h"

#include <cmath>

#include "core/error.h"
#include "ops/checks.h"

namespace lathe::ops {
namespace {

constexpr std::string_view kForward = "mla_attention_forward";
constexpr std::string_view kBackward = "mla_attention_backward";

template <typename Op>
MlaAttentionProblem sizes_of(const Op& op) {
  const bool packed = static_cast<bool>(op.cu_seqlens_q);
  const std::size_t token = packed ? 0 : 1;
  MlaAttentionProblem problem;
  problem.device = op.q_nope.device;
  problem.dtype = op.q_nope.dtype;
  problem.packed = packed;
  problem.causal = op.causal;
  problem.sequences = packed ? op.cu_seqlens_q.shape[0] - 1 : op.q_nope.shape[0];
  problem.s_q = op.q_nope.shape[token];
  problem.s_k = op.k_nope.shape[token];
  problem.h = op.q_nope.shape[token + 1];
  problem.dn = op.q_nope.shape[token + 2];
  problem.dr = op.q_pe.shape[token + 2];
  problem.dv = op.v.shape[token + 2];
  problem.softmax_scale = op.softmax_scale;
  return problem;
}

// The sizes that all tensors of one call share; every check names the op and both sides of a clash.
class Checker {
 public:
  // Takes the sizes from the inputs, then checks the inputs.
  template <typename Op>
  Checker(std::string_view name, const Context& context, const Op& op, Checked checked)
      : name_(name), context_(context), checked_(checked) {
    const bool packed = static_cast<bool>(op.cu_seqlens_q);
    check(packed == static_cast<bool>(op.cu_seqlens_k), "{}: cu_seqlens_{} is given without cu_seqlens_{}", name_,
          packed ? "q" : "k", packed ? "k" : "q");
    const int rank = packed ? 3 : 4;
    check_rank(name_, "q_nope", op.q_nope, rank);
    check_rank(name_, "q_pe", op.q_pe, rank);
    check_rank(name_, "k_nope", op.k_nope, rank);
    check_rank(name_, "v", op.v, rank);
    check_floating(name_, "q_nope", op.q_nope);
    problem_ = problem_of(op);
    const std::int64_t h = problem_.h, dn = problem_.dn, dr = problem_.dr, dv = problem_.dv;
    check(h >= 1 && dn >= 1 && dr >= 1 && dv >= 1,
          "{}: {} heads of dimensions {} (nope), {} (pe) and {} (v); each must be at least 1", name_, h, dn, dr, dv);
    check(std::isfinite(op.softmax_scale), "{}: softmax_scale is {}", name_, op.softmax_scale);
    queries("q_nope", op.q_nope, dn);
    queries("q_pe", op.q_pe, dr);
    keys("k_nope", op.k_nope, h, dn);
    keys("k_pe", op.k_pe, 1, dr);
    keys("v", op.v, h, dv);
    if (packed) sequences(op.cu_seqlens_q, op.cu_seqlens_k);
  }

  const MlaAttentionProblem& problem() const { return problem_; }

  void queries(std::string_view tensor, const TensorView& view, std::int64_t d) const {
    tokens(tensor, view, problem_.s_q, problem_.h, d);
  }
  void keys(std::string_view tensor, const TensorView& view, std::int64_t heads, std::int64_t d) const {
    tokens(tensor, view, problem_.s_k, heads, d);
  }
  void stats(std::string_view tensor, const TensorView& view) const {
    const DType dtype = at_least_f32(problem_.dtype);
    if (problem_.packed)
      check_tensor(name_, tensor, view, context_, dtype, {problem_.h, problem_.s_q});
    else
      check_tensor(name_, tensor, view, context_, dtype, {problem_.sequences, problem_.h, problem_.s_q});
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
    if (problem_.packed)
      check_tensor(name_, tensor, view, context_, problem_.dtype, {s, heads, d});
    else
      check_tensor(name_, tensor, view, context_, problem_.dtype, {problem_.sequences, s, heads, d});
  }

  void sequences(const TensorView& q, const TensorView& k) const {
    cu_seqlens("cu_seqlens_q", q, problem_.s_q);
    cu_seqlens("cu_seqlens_k", k, problem_.s_k);
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
  MlaAttentionProblem problem_;
};

}  // namespace

MlaAttentionProblem problem_of(const MlaAttentionForward& op) { return sizes_of(op); }

MlaAttentionProblem problem_of(const MlaAttentionBackward& op) {
  MlaAttentionProblem problem = sizes_of(op);
  problem.deterministic = op.deterministic;
  return problem;
}

MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionForward& op, Checked checked) {
  const Checker checker(kForward, context, op, checked);
  const MlaAttentionProblem& sizes = checker.problem();
  checker.queries("o", op.out, sizes.dv);
  checker.stats("lse", op.lse);
  checker.written("o", op.out);
  checker.written("lse", op.lse);
  return checker.problem();
}

MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionBackward& op, Checked checked) {
  const Checker checker(kBackward, context, op, checked);
  const MlaAttentionProblem& sizes = checker.problem();
  checker.queries("o", op.out, sizes.dv);
  checker.queries("do", op.dout, sizes.dv);
  checker.stats("lse", op.lse);
  if (op.dlse) checker.stats("dlse", op.dlse);
  checker.queries("dq_nope", op.dq_nope, sizes.dn);
  checker.queries("dq_pe", op.dq_pe, sizes.dr);
  checker.keys("dk_nope", op.dk_nope, sizes.h, sizes.dn);
  checker.keys("dk_pe", op.dk_pe, 1, sizes.dr);
  checker.keys("dv", op.dv, sizes.h, sizes.dv);
  checker.written("dq_nope", op.dq_nope);
  checker.written("dq_pe", op.dq_pe);
  checker.written("dk_nope", op.dk_nope);
  checker.written("dk_pe", op.dk_pe);
  checker.written("dv", op.dv);
  return checker.problem();
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
