// The list of attention backends and the choice among them. Names no other op: liblathe.so links this file and not
// register.cpp.
#include <array>

#include "backends/cuda.h"
#include "backends/register.h"
#include "core/error.h"
#include "ops/cpu/cpu_ops.h"

namespace lathe {
namespace {

std::string nothing_missing() { return {}; }
std::string cpu_unsupported(const ops::MlaAttentionProblem&) { return {}; }  // it computes all that the checks let by
std::size_t no_workspace(const ops::MlaAttentionProblem&) { return 0; }

constexpr ops::MlaAttentionBackend kCpuAttention{
    .name = "cpu",
    .device = DeviceKind::cpu,
    .computes = "fp32, fp64 and bf16, on every processor",
    .unavailable = nothing_missing,
    .unsupported = cpu_unsupported,
    .forward_workspace = no_workspace,
    .backward_workspace = no_workspace,
    .forward = ops::cpu::mla_attention_forward,
    .backward = ops::cpu::mla_attention_backward,
};

std::string_view name_of(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

// Why `backend`, which runs on the call's device, cannot take the call; "" if it can.
std::string lacking(const ops::MlaAttentionBackend& backend, const ops::MlaAttentionProblem& problem) {
  std::string reason = backend.unavailable();
  if (reason.empty()) reason = backend.unsupported(problem);
  return reason;
}

}  // namespace

std::span<const ops::MlaAttentionBackend> attention_backends() {
  // In the order of choice.
  static const std::array<ops::MlaAttentionBackend, 3> backends{kCpuAttention, sm90_attention_backend(),
                                                                cudnn_attention_backend()};
  return backends;
}

const ops::MlaAttentionBackend* find_attention_backend(std::string_view name, const ops::MlaAttentionProblem& problem) {
  bool known = name == "auto";
  for (const ops::MlaAttentionBackend& backend : attention_backends()) {
    if (name != "auto" && name != backend.name) continue;
    known = true;
    if (backend.device == problem.device && lacking(backend, problem).empty()) return &backend;
  }
  if (known) return nullptr;
  std::string names;
  for (const ops::MlaAttentionBackend& backend : attention_backends()) names += fmt::format(", {}", backend.name);
  refuse("the attention backend is \"{}\", allowed are auto{}", name, names);
}

AttentionChoice choose_attention_backend(std::string_view name, const ops::MlaAttentionProblem& problem) {
  if (const ops::MlaAttentionBackend* backend = find_attention_backend(name, problem))
    return {backend, name == "auto" ? "auto: the first of the backends that supports the call" : "as asked for"};
  std::string obstacles;
  for (const ops::MlaAttentionBackend& backend : attention_backends()) {
    if (name != "auto" && name != backend.name) continue;
    const std::string obstacle =
        backend.device == problem.device
            ? lacking(backend, problem)
            : fmt::format("it runs on {}, the tensors lie on {}", name_of(backend.device), name_of(problem.device));
    obstacles += fmt::format("{}{}: {}", obstacles.empty() ? "" : "; ", backend.name, obstacle);
  }
  return {nullptr, obstacles};
}

}  // namespace lathe
