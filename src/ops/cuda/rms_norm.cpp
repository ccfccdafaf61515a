#include "ops/rms_norm.h"

#include "ops/cuda/column_sums.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/rms_norm_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void rms_norm_forward(const Context& context, const RmsNormForward& op) {
  RmsNormParams params;
  params.x = matrix_of(op.x);
  params.residual = matrix_of(op.residual);
  params.sum = matrix_of(op.sum);
  params.out = matrix_of(op.out);
  params.weight = op.weight.data;
  params.rstd = op.rstd ? op.rstd.as<float>() : nullptr;
  params.rows = op.x.shape[0];
  params.width = op.x.shape[1];
  params.eps = static_cast<float>(op.eps);
  params.element = element_of("rms_norm_forward", op.x);
  params.wide = rows_of_16_bytes({op.x, op.residual, op.weight, op.out, op.sum});
  check_cuda(launch_rms_norm_forward(params, stream_of(context)), "launching rms_norm_forward");
}

void rms_norm_backward(const Context& context, const RmsNormBackward& op) {
  const ArenaScope scope(*context.scratch);
  RmsNormParams params;
  params.x = matrix_of(op.x);
  params.dout = matrix_of(op.dout);
  params.dsum = matrix_of(op.dsum);
  params.dx = matrix_of(op.dx);
  params.weight = op.weight.data;
  params.rstd = op.rstd.as<float>();
  params.rows = op.x.shape[0];
  params.width = op.x.shape[1];
  params.element = element_of("rms_norm_backward", op.x);
  params.wide = rows_of_16_bytes({op.x, op.dout, op.weight, op.dsum, op.dx});

  check(params.width <= kMostRmsNormWidth, "rms_norm_backward: {} columns, the CUDA op takes up to {}", params.width,
        kMostRmsNormWidth);
  const std::int64_t chunks = rms_norm_chunks(params.rows);
  params.partials = take_scratch<float>(context, chunks * params.width);
  check_cuda(launch_rms_norm_backward(params, stream_of(context)), "launching rms_norm_backward");
  ColumnSums sums;
  sums.width = params.width;
  sums.partials = params.partials;
  sums.sums = op.dweight.data;
  sums.sums_element = gradient_element(op.dweight);
  check_cuda(launch_add_chunks(sums, chunks, stream_of(context)), "launching the weight gradient of rms_norm_backward");
}

}  // namespace lathe::ops::cuda
