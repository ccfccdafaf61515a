// Multi-head latent attention on split inputs: scores = softmax_scale * (q_nope k_nope^T + q_pe k_pe^T), where k_pe is
// one head shared by all. Every tensor is read and written where it lies: any strides, last dimension contiguous; a
// stride of 0 shares. Never a full s_q x s_k matrix (Dao et al., FlashAttention, 2022).
//
// Dense: q_nope, q_pe [b, s_q, h, .], k_nope, v [b, s_k, h, .], k_pe [b, s_k, 1, dr], lse [b, h, s_q].
// Packed: the same without b and with cu_seqlens [n + 1] i32 (ascending from 0 to the total); lse [h, total_q].
// Causal is aligned to the end: query i sees keys j <= i + s_k - s_q. A row that sees no key has out = 0, lse = -inf
// and gradient 0. lse is the natural log of the sum of exp(scores), fp32 (fp64 for fp64 inputs).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ops/context.h"

namespace lathe::ops {

// Memory that a backend asks for (MlaAttentionBackend::forward_workspace). It is zero before its first use, and a call
// of either pass leaves it ready for the next of either on the same stream; not given, it is scratch memory.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
  std::uint64_t* clock_counters = nullptr;  // for benchmarks: [SM cycles, nanoseconds], added to by the main kernel
};

struct MlaAttentionForward {
  TensorView q_nope;        // [b, s_q, h, dn]
  TensorView q_pe;          // [b, s_q, h, dr]
  TensorView k_nope;        // [b, s_k, h, dn]
  TensorView k_pe;          // [b, s_k, 1, dr]
  TensorView v;             // [b, s_k, h, dv]
  TensorView out;           // [b, s_q, h, dv], written
  TensorView lse;           // [b, h, s_q], written
  TensorView cu_seqlens_q;  // [n + 1] i32 for packed inputs, else none
  TensorView cu_seqlens_k;
  double softmax_scale = 0;
  bool causal = true;
  Workspace workspace{};
};

struct MlaAttentionBackward {
  TensorView q_nope, q_pe, k_nope, k_pe, v;  // the forward's
  TensorView out, lse;                       // the forward's results
  TensorView dout;                           // [b, s_q, h, dv]
  TensorView dlse;                           // as lse, or none
  TensorView dq_nope, dq_pe, dk_nope, dv;    // written, shapes of their inputs
  TensorView dk_pe;                          // [b, s_k, 1, dr], written: the sum over heads
  TensorView cu_seqlens_q, cu_seqlens_k;
  double softmax_scale = 0;
  bool causal = true;
  bool deterministic = false;  // equal bits in every run
  Workspace workspace{};
};

void mla_attention_forward(const Context& context, const MlaAttentionForward& op);
void mla_attention_backward(const Context& context, const MlaAttentionBackward& op);

// What a call asks for, taken from its tensors.
struct MlaAttentionProblem {
  DeviceKind device = DeviceKind::cpu;
  DType dtype = DType::f32;
  bool packed = false;
  bool causal = true;
  bool deterministic = false;
  std::int64_t sequences = 0;     // b, or n of cu_seqlens
  std::int64_t s_q = 0, s_k = 0;  // of a sequence, or the totals
  std::int64_t h = 0, dn = 0, dr = 0, dv = 0;
  double softmax_scale = 0;
};

// An implementation of the operator. `backends` holds the list; a table entry is one of them.
struct MlaAttentionBackend {
  std::string_view name;
  DeviceKind device;
  std::string_view computes;                               // "fp32, fp64 and bf16, on every processor"
  std::string (*unavailable)();                            // what this machine lacks, or ""
  std::string (*unsupported)(const MlaAttentionProblem&);  // what of the call it cannot do, or ""
  std::size_t (*forward_workspace)(const MlaAttentionProblem&);
  std::size_t (*backward_workspace)(const MlaAttentionProblem&);
  void (*forward)(const Context&, const MlaAttentionForward&);
  void (*backward)(const Context&, const MlaAttentionBackward&);
};

// Of tensors that were checked, or at least are of the right ranks.
MlaAttentionProblem problem_of(const MlaAttentionForward& op);
MlaAttentionProblem problem_of(const MlaAttentionBackward& op);

// What a check looks at: cu_seqlens on the CPU are read, or no memory at all is.
enum class Checked : std::uint8_t { values, shapes };

// The checks of mla_attention_forward and _backward: throw Error naming both sides of a clash, out and dout as `o` and
// `do`.
MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionForward& op,
                                        Checked checked = Checked::values);
MlaAttentionProblem check_mla_attention(const Context& context, const MlaAttentionBackward& op,
                                        Checked checked = Checked::values);

}  // namespace lathe::ops
