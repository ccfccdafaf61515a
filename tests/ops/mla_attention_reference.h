// Attention written down as its definition, in fp64 and with every score: what the op is compared with. Pairs of query
// and key that do not see each other are left out of every sum, so NaN goes only where it must.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cases/mla_attention_cases.h"

namespace lathe::testing {

// Everything in logical order: [token][head][d]; stats [batch][head][query], or [head][token] for packed inputs.
struct AttentionValues {
  std::vector<double> q_nope, q_pe, k_nope, k_pe, v, dout, dlse;
};
struct AttentionResults {
  std::vector<double> out, lse, dq_nope, dq_pe, dk_nope, dk_pe, dv;
};

class AttentionReference {
 public:
  AttentionReference(const cases::MlaAttentionCase& shape, double scale, const AttentionValues& in)
      : shape_(shape), scale_(scale), in_(in) {
    const std::int64_t batches = shape.packed() ? 1 : shape.b;
    const auto zeros = [&](std::int64_t s, std::int64_t heads, std::int64_t d) {
      return std::vector<double>(static_cast<std::size_t>(batches * s * heads * d));
    };
    results_ = {zeros(shape.s_q, shape.h, shape.dv), zeros(shape.s_q, shape.h, 1),
                zeros(shape.s_q, shape.h, shape.dn), zeros(shape.s_q, shape.h, shape.dr),
                zeros(shape.s_k, shape.h, shape.dn), zeros(shape.s_k, 1, shape.dr),
                zeros(shape.s_k, shape.h, shape.dv)};
    std::int64_t q = 0;
    std::int64_t k = 0;
    for (std::int64_t i = 0; i < batches; ++i) {
      if (!shape.packed()) sequence(i * shape.s_q, shape.s_q, i * shape.s_k, shape.s_k);
      for (std::size_t n = 0; n < shape.q_lengths.size(); ++n) {
        sequence(q, shape.q_lengths[n], k, shape.k_lengths[n]);
        q += shape.q_lengths[n];
        k += shape.k_lengths[n];
      }
    }
  }
  const AttentionResults& results() const { return results_; }

 private:
  template <typename Values>
  static auto* at(Values& values, std::int64_t index, std::int64_t d) {
    return values.data() + index * d;
  }

  void sequence(std::int64_t q0, std::int64_t q_len, std::int64_t k0, std::int64_t k_len) {
    for (std::int64_t head = 0; head < shape_.h; ++head)
      for (std::int64_t i = 0; i < q_len; ++i) {
        const std::int64_t last = shape_.causal ? i + 1 + k_len - q_len : k_len;
        query(q0 + i, k0, std::max<std::int64_t>(0, std::min(last, k_len)), head);
      }
  }

  // One query of one head against its keys [k0, k0 + count): forward, and its part of every gradient.
  void query(std::int64_t token, std::int64_t k0, std::int64_t count, std::int64_t head) {
    const std::int64_t h = shape_.h;
    const std::int64_t row = token * h + head;
    const double* q_nope = at(in_.q_nope, row, shape_.dn);
    const double* q_pe = at(in_.q_pe, row, shape_.dr);
    std::vector<double> p(static_cast<std::size_t>(count));
    double top = -std::numeric_limits<double>::infinity();
    for (std::int64_t j = 0; j < count; ++j) {
      const double* k_nope = at(in_.k_nope, (k0 + j) * h + head, shape_.dn);
      const double* k_pe = at(in_.k_pe, k0 + j, shape_.dr);
      double score = 0;
      for (std::int64_t c = 0; c < shape_.dn; ++c) score += q_nope[c] * k_nope[c];
      for (std::int64_t c = 0; c < shape_.dr; ++c) score += q_pe[c] * k_pe[c];
      p[static_cast<std::size_t>(j)] = scale_ * score;
      top = std::max(top, scale_ * score);
    }
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - top);
    const std::size_t stats = stats_index(token, head);
    results_.lse[stats] = count == 0 ? -std::numeric_limits<double>::infinity() : top + std::log(sum);
    double* out = at(results_.out, row, shape_.dv);
    for (std::int64_t j = 0; j < count; ++j) {
      p[static_cast<std::size_t>(j)] /= sum;
      const double* v = at(in_.v, (k0 + j) * h + head, shape_.dv);
      for (std::int64_t c = 0; c < shape_.dv; ++c) out[c] += p[static_cast<std::size_t>(j)] * v[c];
    }
    if (!in_.dout.empty()) gradients(row, stats, k0, head, p, out);
  }

  void gradients(std::int64_t row, std::size_t stats, std::int64_t k0, std::int64_t head, const std::vector<double>& p,
                 const double* out) {
    const std::int64_t h = shape_.h;
    const double* dout = at(in_.dout, row, shape_.dv);
    double delta = in_.dlse.empty() ? 0 : -in_.dlse[stats];
    for (std::int64_t c = 0; c < shape_.dv; ++c) delta += dout[c] * out[c];
    for (std::int64_t j = 0; j < static_cast<std::int64_t>(p.size()); ++j) {
      const std::int64_t key = (k0 + j) * h + head;
      const double* v = at(in_.v, key, shape_.dv);
      double dp = 0;
      for (std::int64_t c = 0; c < shape_.dv; ++c) {
        dp += dout[c] * v[c];
        at(results_.dv, key, shape_.dv)[c] += p[static_cast<std::size_t>(j)] * dout[c];
      }
      const double ds = p[static_cast<std::size_t>(j)] * (dp - delta) * scale_;
      for (std::int64_t c = 0; c < shape_.dn; ++c) {
        at(results_.dq_nope, row, shape_.dn)[c] += ds * at(in_.k_nope, key, shape_.dn)[c];
        at(results_.dk_nope, key, shape_.dn)[c] += ds * at(in_.q_nope, row, shape_.dn)[c];
      }
      for (std::int64_t c = 0; c < shape_.dr; ++c) {
        at(results_.dq_pe, row, shape_.dr)[c] += ds * at(in_.k_pe, k0 + j, shape_.dr)[c];
        at(results_.dk_pe, k0 + j, shape_.dr)[c] += ds * at(in_.q_pe, row, shape_.dr)[c];
      }
    }
  }

  std::size_t stats_index(std::int64_t token, std::int64_t head) const {
    const std::int64_t batch = shape_.packed() ? 0 : token / shape_.s_q;
    return static_cast<std::size_t>((batch * shape_.h + head) * shape_.s_q + token - batch * shape_.s_q);
  }

  // Used while it is made only.
  const cases::MlaAttentionCase& shape_;
  double scale_;
  const AttentionValues& in_;
  AttentionResults results_;
};

}  // namespace lathe::testing
