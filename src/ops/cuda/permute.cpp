#include "ops/permute.h"

#include "ops/cuda/counting_sort.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/permute_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

PermuteParams params_for(std::string_view op, const TensorView& tokens, const TensorView& row_map) {
  PermuteParams params;
  params.tokens = matrix_of(tokens);
  params.row_map = matrix_of(row_map);
  params.rows = tokens.shape[0];
  params.width = tokens.shape[1];
  params.k = static_cast<int>(row_map.shape[1]);
  params.element = element_of(op, tokens);
  return params;
}

}  // namespace

void permute_plan(const Context& context, const PermutePlan& op) {
  const ArenaScope scope(*context.scratch);
  const std::int64_t experts = op.offsets.shape[0] - 1;
  check(experts <= kMostBuckets, "permute_plan: {} experts, at most {} are sorted by", experts, kMostBuckets);
  CountingSort sort;
  sort.keys = op.indices.as<std::int32_t>();
  sort.keys_stride = op.indices.strides[0];
  sort.columns = op.indices.shape[1];
  sort.count = op.indices.numel();
  sort.buckets = static_cast<int>(experts);
  sort.counts = take_scratch<std::int32_t>(context, counting_sort_chunks(sort.count) * experts);
  sort.starts = op.offsets.as<std::int32_t>();
  sort.place = op.row_map.as<std::int32_t>();
  sort.place_stride = op.row_map.strides[0];
  check_cuda(launch_counting_sort(sort, stream_of(context)), "launching permute_plan");
}

void permute_forward(const Context& context, const PermuteForward& op) {
  PermuteParams params = params_for("permute_forward", op.x, op.row_map);
  params.sorted = matrix_of(op.out);
  params.wide = rows_of_16_bytes({op.x, op.out});
  check_cuda(launch_permute_forward(params, stream_of(context)), "launching permute_forward");
}

void permute_backward(const Context& context, const PermuteBackward& op) {
  PermuteParams params = params_for("permute_backward", op.dx, op.row_map);
  params.sorted = matrix_of(op.dout);
  params.accumulate = op.accumulate;
  params.wide = rows_of_16_bytes({op.dout, op.dx});
  check_cuda(launch_permute_backward(params, stream_of(context)), "launching permute_backward");
}

void unpermute_forward(const Context& context, const UnpermuteForward& op) {
  PermuteParams params = params_for("unpermute_forward", op.out, op.row_map);
  params.sorted = matrix_of(op.x);
  params.weights = matrix_of(op.weights);
  params.residual = matrix_of(op.residual);
  params.shared = matrix_of(op.shared);
  params.wide = rows_of_16_bytes({op.x, op.residual, op.shared, op.out});
  check_cuda(launch_unpermute_forward(params, stream_of(context)), "launching unpermute_forward");
}

void unpermute_backward(const Context& context, const UnpermuteBackward& op) {
  PermuteParams params = params_for("unpermute_backward", op.dout, op.row_map);
  params.sorted = matrix_of(op.x);
  params.dsorted = matrix_of(op.dx);
  params.weights = matrix_of(op.weights);
  params.dweights = matrix_of(op.dweights);
  params.wide = rows_of_16_bytes({op.dout, op.x, op.dx});
  check_cuda(launch_unpermute_backward(params, stream_of(context)), "launching unpermute_backward");
}

}  // namespace lathe::ops::cuda
