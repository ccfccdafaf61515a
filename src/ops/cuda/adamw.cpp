#include "ops/adamw.h"

#include <cmath>

#include "ops/cuda/adamw_launch.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void adamw(const Context& context, const AdamW& op) {
  const auto step = static_cast<double>(op.step);
  AdamWParams params;
  params.parameter = op.parameter.data;
  params.gradient = op.gradient.data;
  params.m = op.m.data;
  params.v = op.v.data;
  params.rounded = op.rounded.data;
  params.count = op.parameter.numel();
  params.grad_scale = static_cast<float>(op.grad_scale);
  params.keep = static_cast<float>(1.0 - op.lr * op.weight_decay);
  params.beta1 = static_cast<float>(op.beta1);
  params.beta2 = static_cast<float>(op.beta2);
  params.rest1 = static_cast<float>(1.0 - op.beta1);
  params.rest2 = static_cast<float>(1.0 - op.beta2);
  params.step_size = static_cast<float>(op.lr / (1.0 - std::pow(op.beta1, step)));
  params.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(op.beta2, step)));
  params.eps = static_cast<float>(op.eps);
  params.element = element_of("adamw", op.parameter);
  params.gradient_element = element_of("adamw", op.gradient);
  params.wide = true;
  for (const TensorView& tensor : {op.parameter, op.gradient, op.m, op.v, op.rounded})
    params.wide = params.wide && reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0;
  check_cuda(launch_adamw(params, stream_of(context)), "launching adamw");
}

}  // namespace lathe::ops::cuda
