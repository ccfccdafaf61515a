#include <initializer_list>

#include "backends/cuda.h"
#include "core/error.h"
#include "device/cuda_device.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/views.h"

namespace lathe {
namespace {

// The Hopper kernels, which load 16 bytes at a time, where they can take the call, else plain ones that take any.
bool sm90_takes(const ops::MlaAttentionProblem& problem, std::initializer_list<TensorView> tensors) {
  const ops::MlaAttentionBackend& sm90 = sm90_attention_backend();
  if (!sm90.unavailable().empty() || !sm90.unsupported(problem).empty()) return false;
  return ops::cuda::rows_of_16_bytes(tensors);
}

void attention_forward(const ops::Context& context, const ops::MlaAttentionForward& op) {
  const bool fast = sm90_takes(ops::problem_of(op), {op.q_nope, op.q_pe, op.k_nope, op.k_pe, op.v, op.out});
  (fast ? sm90_attention_backend().forward : ops::cuda::mla_attention_forward)(context, op);
}

void attention_backward(const ops::Context& context, const ops::MlaAttentionBackward& op) {
  const bool fast = sm90_takes(ops::problem_of(op), {op.q_nope, op.q_pe, op.k_nope, op.k_pe, op.v, op.out, op.dout,
                                                     op.dq_nope, op.dq_pe, op.dk_nope, op.dk_pe, op.dv});
  (fast ? sm90_attention_backend().backward : ops::cuda::mla_attention_backward)(context, op);
}

constexpr ops::Table kCudaTable{
    .embedding_forward = ops::cuda::embedding_forward,
    .embedding_backward = ops::cuda::embedding_backward,
    .rms_norm_forward = ops::cuda::rms_norm_forward,
    .rms_norm_backward = ops::cuda::rms_norm_backward,
    .linear_forward = ops::cuda::linear_forward,
    .linear_backward = ops::cuda::linear_backward,
    .grouped_linear_forward = ops::cuda::grouped_linear_forward,
    .grouped_linear_backward = ops::cuda::grouped_linear_backward,
    .swiglu_forward = ops::cuda::swiglu_forward,
    .swiglu_backward = ops::cuda::swiglu_backward,
    .rope = ops::cuda::rope,
    .mla_attention_forward = attention_forward,
    .mla_attention_backward = attention_backward,
    .router_forward = ops::cuda::router_forward,
    .router_backward = ops::cuda::router_backward,
    .load_balance = ops::cuda::load_balance,
    .permute_plan = ops::cuda::permute_plan,
    .permute_forward = ops::cuda::permute_forward,
    .permute_backward = ops::cuda::permute_backward,
    .unpermute_forward = ops::cuda::unpermute_forward,
    .unpermute_backward = ops::cuda::unpermute_backward,
    .cross_entropy = ops::cuda::cross_entropy,
    .adamw = ops::cuda::adamw,
    .sum_of_squares = ops::cuda::sum_of_squares,
};

void require_cuda() {
  const std::string reason = cuda_device_unavailable();
  require(reason.empty(), "{}", reason);
}

}  // namespace

std::string cuda_unavailable() { return cuda_device_unavailable(); }

std::unique_ptr<Device> make_cuda_device_or_refuse() {
  require_cuda();
  return make_cuda_device(0);
}

std::unique_ptr<Stopwatch> make_cuda_stopwatch_or_refuse() {
  require_cuda();
  return make_cuda_stopwatch();
}

std::unique_ptr<Timeline> make_cuda_timeline_or_refuse(Stream stream) {
  require_cuda();
  return make_cuda_timeline(stream);
}

const ops::Table& cuda_table() { return kCudaTable; }

}  // namespace lathe
