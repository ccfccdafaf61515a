#include "ops/cuda/mla_sm90/mla_sm90.h"

#include <cmath>

#include "core/error.h"
#include "device/cuda_device.h"
#include "ops/cuda/device_facts.h"
#include "ops/cuda/mla_sm90/backward.h"
#include "ops/cuda/mla_sm90/forward.h"
#include "ops/cuda/mla_sm90/forward_params.h"

namespace lathe::ops::cuda {
namespace {

std::string unavailable() {
  std::string obstacle = cuda_driver_unavailable();
  if (!obstacle.empty()) return obstacle;
  try {
    const DeviceFacts& device = current_device();
    if (device.major == 9 && device.minor == 0) return {};
    return fmt::format("device {} has compute capability {}.{}; it is written for 9.0 (Hopper)", device.device,
                       device.major, device.minor);
  } catch (const Error& error) {
    return error.what();
  }
}

std::string unsupported(const MlaAttentionProblem& problem) {
  using Traits = ForwardTraits;
  if (problem.dtype != DType::bf16)
    return fmt::format("it computes in bf16, the tensors are {}", name_of(problem.dtype));
  if (problem.dn != Traits::kNope || problem.dr != Traits::kRope || problem.dv != Traits::kValue)
    return fmt::format("it is built for head sizes {} + {} (q and k) and {} (v), the tensors have {} + {} and {}",
                       Traits::kNope, Traits::kRope, Traits::kValue, problem.dn, problem.dr, problem.dv);
  // The largest raw score is found before it is scaled.
  if (!(problem.softmax_scale > 0) || !std::isfinite(problem.softmax_scale))
    return fmt::format("it needs a finite softmax_scale above 0, given is {}", problem.softmax_scale);
  return {};
}

constexpr MlaAttentionBackend kBackend{
    .name = "sm90",
    .device = DeviceKind::cuda,
    .computes = "bf16, head sizes 128 + 64 and 128, on Hopper",
    .unavailable = unavailable,
    .unsupported = unsupported,
    .forward_workspace = mla_sm90_forward_workspace,
    .backward_workspace = mla_sm90_backward_workspace,
    .forward = mla_sm90_forward,
    .backward = mla_sm90_backward,
};

}  // namespace

const MlaAttentionBackend& mla_sm90() { return kBackend; }

}  // namespace lathe::ops::cuda
