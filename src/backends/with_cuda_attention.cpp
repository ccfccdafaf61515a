// The CUDA attention backends. Names no other op: liblathe.so links this file and not with_cuda.cpp.
#include "backends/absent_backend.h"
#include "backends/cuda.h"
#include "ops/cuda/mla_sm90/mla_sm90.h"

namespace lathe {
namespace {

constexpr std::string_view kNoCudnn = "not built yet: Lathe has no cuDNN backend so far";
constexpr ops::MlaAttentionBackend kCudnn = absent_backend<kNoCudnn>("cudnn");

}  // namespace

const ops::MlaAttentionBackend& sm90_attention_backend() { return ops::cuda::mla_sm90(); }
const ops::MlaAttentionBackend& cudnn_attention_backend() { return kCudnn; }

}  // namespace lathe
