#include "backends/absent_backend.h"
#include "backends/cuda.h"

namespace lathe {
namespace {

constexpr std::string_view kReason =
    "this build has no CUDA: nvcc was not found when it was configured, or LATHE_CUDA was OFF";

constexpr ops::MlaAttentionBackend kSm90 = absent_backend<kReason>("sm90");
constexpr ops::MlaAttentionBackend kCudnn = absent_backend<kReason>("cudnn");

}  // namespace

std::string cuda_unavailable() { return std::string(kReason); }
std::unique_ptr<Device> make_cuda_device_or_refuse() { refuse("{}", kReason); }
std::unique_ptr<Stopwatch> make_cuda_stopwatch_or_refuse() { refuse("{}", kReason); }
std::unique_ptr<Timeline> make_cuda_timeline_or_refuse(Stream) { refuse("{}", kReason); }
const ops::Table& cuda_table() { fail("{}", kReason); }
const ops::MlaAttentionBackend& sm90_attention_backend() { return kSm90; }
const ops::MlaAttentionBackend& cudnn_attention_backend() { return kCudnn; }

}  // namespace lathe
