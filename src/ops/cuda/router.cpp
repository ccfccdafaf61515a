#include "ops/router.h"

#include <algorithm>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/router_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

void check_sizes(std::string_view op, const TensorView& scores) {
  check(scores.dtype == DType::f32, "{}: the CUDA router works in f32, given is {}", op, scores.describe());
  check(scores.shape[1] <= kMostExperts, "{}: {} experts, the CUDA router takes up to {}", op, scores.shape[1],
        kMostExperts);
}

}  // namespace

void router_forward(const Context& context, const RouterForward& op) {
  check_sizes("router_forward", op.logits);
  RouterParams params;
  params.logits = matrix_of(op.logits);
  params.scores = matrix_of(op.scores);
  params.indices = matrix_of(op.indices);
  params.weights = matrix_of(op.weights);
  params.rows = op.logits.shape[0];
  params.experts = static_cast<int>(op.logits.shape[1]);
  params.k = static_cast<int>(op.indices.shape[1]);
  if (op.method == TopkMethod::group_limited_greedy) {
    params.groups = static_cast<int>(op.num_groups);
    params.topk_group = static_cast<int>(op.topk_group);
  }
  check(params.experts + params.groups <= kMostExpertsAndGroups,
        "router_forward: {} experts in {} groups, the CUDA router takes up to {} of both together", params.experts,
        params.groups, kMostExpertsAndGroups);
  params.scaling_factor = static_cast<float>(op.scaling_factor);
  params.normalize = op.normalize;
  params.force_balanced = op.force_balanced;
  check_cuda(launch_router_forward(params, stream_of(context)), "launching router_forward");
}

void router_backward(const Context& context, const RouterBackward& op) {
  check_sizes("router_backward", op.scores);
  RouterParams params;
  params.scores = matrix_of(op.scores);
  params.indices = matrix_of(op.indices);
  params.dweights = matrix_of(op.dweights);
  params.dscores = matrix_of(op.dscores);
  params.dlogits = matrix_of(op.dlogits);
  params.rows = op.scores.shape[0];
  if (op.dscores) params.rows_per_scope = std::max<std::int64_t>(1, params.rows / op.dscores.shape[0]);
  params.experts = static_cast<int>(op.scores.shape[1]);
  params.k = static_cast<int>(op.indices.shape[1]);
  params.scaling_factor = static_cast<float>(op.scaling_factor);
  params.normalize = op.normalize;
  check_cuda(launch_router_backward(params, stream_of(context)), "launching router_backward");
}

}  // namespace lathe::ops::cuda
