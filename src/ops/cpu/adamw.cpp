#include "ops/adamw.h"

#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"

namespace lathe::ops::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = 8192;

template <typename T>
void run(const AdamW& op) {
  const auto step = static_cast<double>(op.step);
  const T grad_scale = static_cast<T>(op.grad_scale);
  const T keep = static_cast<T>(1.0 - op.lr * op.weight_decay);
  const T beta1 = static_cast<T>(op.beta1);
  const T beta2 = static_cast<T>(op.beta2);
  const T rest1 = static_cast<T>(1.0 - op.beta1);
  const T rest2 = static_cast<T>(1.0 - op.beta2);
  const T step_size = static_cast<T>(op.lr / (1.0 - std::pow(op.beta1, step)));
  const T root_scale = static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(op.beta2, step)));
  const T eps = static_cast<T>(op.eps);
  T* parameter = op.parameter.as<T>();
  const T* gradient = op.gradient.as<T>();
  T* m = op.m.as<T>();
  T* v = op.v.as<T>();
  bf16* rounded = op.rounded ? op.rounded.as<bf16>() : nullptr;
  for_chunks(op.parameter.numel(), kElementsPerChunk, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = gradient[i] * grad_scale;
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * (g * g);
      parameter[i] = keep * parameter[i] - step_size * m[i] / (std::sqrt(v[i]) * root_scale + eps);
    }
    if (rounded == nullptr) return;
    for (std::int64_t i = begin; i < end; ++i) rounded[i] = bf16(static_cast<float>(parameter[i]));
  });
}

}  // namespace

void adamw(const Context&, const AdamW& op) {
  for_dtype(op.parameter, [&]<typename T>() { run<T>(op); });
}

}  // namespace lathe::ops::cpu
