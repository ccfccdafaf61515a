#include "backends/register.h"

#include "backends/cuda.h"
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

}  // namespace

std::string device_unavailable(DeviceKind kind) { return kind == DeviceKind::cpu ? std::string() : cuda_unavailable(); }

std::unique_ptr<Device> make_device(DeviceKind kind) {
  return kind == DeviceKind::cpu ? make_cpu_device() : make_cuda_device_or_refuse();
}

std::unique_ptr<Stopwatch> make_stopwatch(DeviceKind kind) {
  return kind == DeviceKind::cpu ? make_cpu_stopwatch() : make_cuda_stopwatch_or_refuse();
}

std::unique_ptr<Timeline> make_timeline(DeviceKind kind, Stream stream) {
  return kind == DeviceKind::cpu ? make_cpu_timeline() : make_cuda_timeline_or_refuse(stream);
}

const ops::Table& op_table(DeviceKind kind) { return kind == DeviceKind::cpu ? kCpuTable : cuda_table(); }

}  // namespace lathe
