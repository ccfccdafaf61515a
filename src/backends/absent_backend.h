// An entry of the list of attention backends that this build lacks: it says why.
#pragma once

#include "core/error.h"
#include "ops/mla_attention.h"

namespace lathe {

template <const std::string_view& kReason>
constexpr ops::MlaAttentionBackend absent_backend(std::string_view name) {
  return {
      .name = name,
      .device = DeviceKind::cuda,
      .computes = "",
      .unavailable = [] { return std::string(kReason); },
      .unsupported = [](const ops::MlaAttentionProblem&) { return std::string(kReason); },
      .forward_workspace = [](const ops::MlaAttentionProblem&) -> std::size_t { return 0; },
      .backward_workspace = [](const ops::MlaAttentionProblem&) -> std::size_t { return 0; },
      .forward = [](const ops::Context&, const ops::MlaAttentionForward&) { fail("{}", kReason); },
      .backward = [](const ops::Context&, const ops::MlaAttentionBackward&) { fail("{}", kReason); },
  };
}

}  // namespace lathe
