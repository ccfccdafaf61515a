#include "backends/absent_backend.h"
#include "backends/cuda.h"
#include "device/cuda_device.h"
#include "ops/cuda/mla_sm90/mla_sm90.h"

namespace lathe {
namespace {

constexpr std::string_view kNoCudnn = "not built yet: Lathe has no cuDNN backend so far";
constexpr ops::MlaAttentionBackend kCudnn = absent_backend<kNoCudnn>("cudnn");

}  // namespace

std::string cuda_unavailable() { return cuda_device_unavailable(); }

std::unique_ptr<Device> make_cuda_device_or_refuse() {
  const std::string reason = cuda_device_unavailable();
  require(reason.empty(), "{}", reason);
  return make_cuda_device(0);
}

std::unique_ptr<Stopwatch> make_cuda_stopwatch_or_refuse() {
  const std::string reason = cuda_device_unavailable();
  require(reason.empty(), "{}", reason);
  return make_cuda_stopwatch();
}

const ops::Table& cuda_table() {
  static const ops::Table table{
      .mla_attention_forward = sm90_attention_backend().forward,
      .mla_attention_backward = sm90_attention_backend().backward,
  };
  return table;
}

const ops::MlaAttentionBackend& sm90_attention_backend() { return ops::cuda::mla_sm90(); }
const ops::MlaAttentionBackend& cudnn_attention_backend() { return kCudnn; }

}  // namespace lathe
