#include "backends/register.h"

#include <array>

#include "backends/cuda.h"
#include "core/error.h"
#include "device/cpu_device.h"
#include "ops/cpu/cpu_ops.h"

namespace lathe {
namespace {

constexpr ops::Table kCpuTable{
    .embedding_forward = ops::cpu::embedding_forward,
    .embedding_backward = ops::cpu::embedding_backward,
    .rms_norm_forward = ops::cpu::rms_norm_forward,
    .rms_norm_backward = ops::cpu::rms_norm_backward,
    .linear_forward = ops::cpu::linear_forward,
    .linear_backward = ops::cpu::linear_backward,
    .grouped_linear_forward = ops::cpu::grouped_linear_forward,
    .grouped_linear_backward = ops::cpu::grouped_linear_backward,
    .swiglu_forward = ops::cpu::swiglu_forward,
    .swiglu_backward = ops::cpu::swiglu_backward,
    .rope = ops::cpu::rope,
    .mla_attention_forward = ops::cpu::mla_attention_forward,
    .mla_attention_backward = ops::cpu::mla_attention_backward,
    .router_forward = ops::cpu::router_forward,
    .router_backward = ops::cpu::router_backward,
    .load_balance = ops::cpu::load_balance,
    .permute_plan = ops::cpu::permute_plan,
    .permute_forward = ops::cpu::permute_forward,
    .permute_backward = ops::cpu::permute_backward,
    .unpermute_forward = ops::cpu::unpermute_forward,
    .unpermute_backward = ops::cpu::unpermute_backward,
    .cross_entropy = ops::cpu::cross_entropy,
    .adamw = ops::cpu::adamw,
    .sum_of_squares = ops::cpu::sum_of_squares,
};

constexpr std::string_view kCpuDoes = "fp32, fp64 and bf16, on every processor";

std::string nothing_missing() { return {}; }
std::string cpu_unsupported(const ops::MlaAttentionProblem&) { return {}; }  // it computes all that the checks let by
std::size_t no_workspace(const ops::MlaAttentionProblem&) { return 0; }

constexpr ops::MlaAttentionBackend kCpuAttention{
    .name = "cpu",
    .device = DeviceKind::cpu,
    .computes = kCpuDoes,
    .unavailable = nothing_missing,
    .unsupported = cpu_unsupported,
    .forward_workspace = no_workspace,
    .backward_workspace = no_workspace,
    .forward = ops::cpu::mla_attention_forward,
    .backward = ops::cpu::mla_attention_backward,
};

std::string_view name_of(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

// Why `backend` cannot take the call; "" if it can.
std::string obstacle(const ops::MlaAttentionBackend& backend, const ops::MlaAttentionProblem& problem) {
  if (backend.device != problem.device)
    return fmt::format("it runs on {}, the tensors lie on {}", name_of(backend.device), name_of(problem.device));
  std::string reason = backend.unavailable();
  if (reason.empty()) reason = backend.unsupported(problem);
  return reason;
}

}  // namespace

std::string device_unavailable(DeviceKind kind) { return kind == DeviceKind::cpu ? std::string() : cuda_unavailable(); }

std::unique_ptr<Device> make_device(DeviceKind kind) {
  return kind == DeviceKind::cpu ? make_cpu_device() : make_cuda_device_or_refuse();
}

const ops::Table& op_table(DeviceKind kind) { return kind == DeviceKind::cpu ? kCpuTable : cuda_table(); }

std::span<const ops::MlaAttentionBackend> attention_backends() {
  // In the order of choice.
  static const std::array<ops::MlaAttentionBackend, 3> backends{kCpuAttention, sm90_attention_backend(),
                                                                cudnn_attention_backend()};
  return backends;
}

AttentionChoice choose_attention_backend(std::string_view name, const ops::MlaAttentionProblem& problem) {
  std::string names;
  std::string obstacles;
  bool known = false;
  for (const ops::MlaAttentionBackend& backend : attention_backends()) {
    names += fmt::format(", {}", backend.name);
    if (name != "auto" && name != backend.name) continue;
    known = true;
    const std::string reason = obstacle(backend, problem);
    if (reason.empty())
      return {&backend, name == "auto" ? fmt::format("auto: the first of the backends that supports the call")
                                       : std::string("as asked for")};
    obstacles += fmt::format("{}{}: {}", obstacles.empty() ? "" : "; ", backend.name, reason);
  }
  require(known, "the attention backend is \"{}\", allowed are auto{}", name, names);
  return {nullptr, obstacles};
}

}  // namespace lathe
