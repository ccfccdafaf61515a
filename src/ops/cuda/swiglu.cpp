#include "ops/swiglu.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/swiglu_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {

void swiglu_forward(const Context& context, const SwigluForward& op) {
  SwigluParams params;
  params.gate_up = matrix_of(op.gate_up);
  params.out = matrix_of(op.out);
  params.rows = op.out.shape[0];
  params.width = op.out.shape[1];
  params.element = element_of("swiglu_forward", op.out);
  params.wide = rows_of_16_bytes({op.gate_up, op.out});
  check_cuda(launch_swiglu_forward(params, stream_of(context)), "launching swiglu_forward");
}

void swiglu_backward(const Context& context, const SwigluBackward& op) {
  SwigluParams params;
  params.gate_up = matrix_of(op.gate_up);
  params.dout = matrix_of(op.dout);
  params.dgate_up = matrix_of(op.dgate_up);
  params.rows = op.dout.shape[0];
  params.width = op.dout.shape[1];
  params.element = element_of("swiglu_backward", op.dout);
  params.wide = rows_of_16_bytes({op.gate_up, op.dout, op.dgate_up});
  check_cuda(launch_swiglu_backward(params, stream_of(context)), "launching swiglu_backward");
}

}  // namespace lathe::ops::cuda
