#include "ops/global_norm.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/global_norm_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void sum_of_squares(const Context& context, const SumOfSquares& op) {
  const ArenaScope scope(*context.scratch);
  SumOfSquaresParams params;
  params.x = op.x.data;
  params.count = op.x.numel();
  params.partials = take_scratch<double>(context, kSumOfSquaresPartials);
  params.out = op.out.as<double>();
  params.element = element_of("sum_of_squares", op.x);
  params.wide = reinterpret_cast<std::uintptr_t>(op.x.data) % 16 == 0;
  check_cuda(launch_sum_of_squares(params, stream_of(context)), "launching sum_of_squares");
}

}  // namespace lathe::ops::cuda
