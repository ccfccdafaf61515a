#include "ops/rope.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/rope_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void rope(const Context& context, const Rope& op) {
  RopeParams params;
  params.x = op.x.data;
  params.out = op.out.data;
  params.x_token = op.x.strides[0];
  params.x_head = op.x.strides[1];
  params.out_token = op.out.strides[0];
  params.out_head = op.out.strides[1];
  params.positions = op.positions.as<std::int32_t>();
  params.position_stride = op.positions.strides[0];
  params.cos = op.cos.as<float>();
  params.sin = op.sin.as<float>();
  params.cos_stride = op.cos.strides[0];
  params.sin_stride = op.sin.strides[0];
  params.tokens = op.x.shape[0];
  params.heads = op.x.shape[1];
  params.half = op.x.shape[2] / 2;
  params.direction = op.transpose ? -1.f : 1.f;
  params.element = element_of("rope", op.x);
  params.wide = rows_of_16_bytes({op.x, op.out});
  check_cuda(launch_rope(params, stream_of(context)), "launching rope");
}

}  // namespace lathe::ops::cuda
