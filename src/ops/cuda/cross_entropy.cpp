#include "ops/cross_entropy.h"

#include "ops/cuda/cross_entropy_launch.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void cross_entropy(const Context& context, const CrossEntropy& op) {
  check(op.logits.dtype == DType::f32, "cross_entropy: on CUDA logits are f32, given is {}", op.logits.describe());
  const ArenaScope scope(*context.scratch);
  CrossEntropyParams params;
  params.logits = matrix_of(op.logits);
  params.dlogits = matrix_of(op.dlogits);
  params.targets = op.targets.as<std::int32_t>();
  params.ignored = kIgnoreIndex;
  params.rows = op.logits.shape[0];
  params.vocab = op.logits.shape[1];
  params.scale = op.scale;
  params.losses = take_scratch<double>(context, params.rows);
  params.loss = op.loss.as<double>();
  if (op.dlogits) params.gradient_element = element_of("cross_entropy", op.dlogits);
  params.wide = rows_of_16_bytes({op.logits, op.dlogits});
  check_cuda(launch_cross_entropy(params, stream_of(context)), "launching cross_entropy");
}

}  // namespace lathe::ops::cuda
