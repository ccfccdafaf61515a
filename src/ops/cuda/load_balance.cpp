#include "ops/load_balance.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/load_balance_launch.h"
#include "ops/cuda/router_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void load_balance(const Context& context, const LoadBalance& op) {
  check(op.scores.dtype == DType::f32, "load_balance: the CUDA router works in f32, given is {}", op.scores.describe());
  check(op.scores.shape[1] <= kMostExperts, "load_balance: {} experts, the CUDA router takes up to {}",
        op.scores.shape[1], kMostExperts);
  const ArenaScope scope(*context.scratch);
  LoadBalanceParams params;
  params.scores = matrix_of(op.scores);
  params.indices = matrix_of(op.indices);
  params.dscores = matrix_of(op.dscores);
  params.accumulated = op.accumulated ? op.accumulated.as<std::int64_t>() : nullptr;
  params.loss = op.loss.as<double>();
  params.scopes = op.dscores.shape[0];
  params.rows = op.scores.shape[0] / params.scopes;
  params.experts = static_cast<int>(op.scores.shape[1]);
  params.k = static_cast<int>(op.indices.shape[1]);
  params.coef_over_tokens = op.coef_over_tokens;
  const std::int64_t partials = params.scopes * load_balance_chunks(params.rows) * params.experts;
  params.counts = take_scratch<std::int32_t>(context, partials);
  params.sums = take_scratch<double>(context, partials);
  check_cuda(launch_load_balance(params, stream_of(context)), "launching load_balance");
}

}  // namespace lathe::ops::cuda
