#include "backends/cuda.h"
#include "core/error.h"

namespace lathe {
namespace {

constexpr std::string_view kReason = "this build has no CUDA: nvcc was not found when it was configured";

std::string unavailable() { return std::string(kReason); }
std::string unsupported(const ops::MlaAttentionProblem&) { return std::string(kReason); }
std::size_t no_workspace(const ops::MlaAttentionProblem&) { return 0; }
void no_forward(const ops::Context&, const ops::MlaAttentionForward&) { fail("{}", kReason); }
void no_backward(const ops::Context&, const ops::MlaAttentionBackward&) { fail("{}", kReason); }

constexpr ops::MlaAttentionBackend absent(std::string_view name) {
  return {name, DeviceKind::cuda, "", unavailable, unsupported, no_workspace, no_workspace, no_forward, no_backward};
}

constexpr ops::MlaAttentionBackend kSm90 = absent("sm90");
constexpr ops::MlaAttentionBackend kCudnn = absent("cudnn");

}  // namespace

std::string cuda_unavailable() { return std::string(kReason); }
std::unique_ptr<Device> make_cuda_device_or_refuse() { refuse("{}", kReason); }
const ops::Table& cuda_table() { fail("{}", kReason); }
const ops::MlaAttentionBackend& sm90_attention_backend() { return kSm90; }
const ops::MlaAttentionBackend& cudnn_attention_backend() { return kCudnn; }

}  // namespace lathe
