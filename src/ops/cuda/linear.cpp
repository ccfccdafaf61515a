#include "ops/linear.h"

#include "ops/cuda/column_sums.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/linear_launch.h"
#include "ops/cuda/matmul.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

// out = bias in every row, or out += bias.
void add_bias(const Context& context, const LinearForward& op) {
  RowsParams params;
  params.from = {op.bias.data, 0};
  params.to = matrix_of(op.out);
  params.rows = op.out.shape[0];
  params.width = op.out.shape[1];
  params.from_element = element_of("linear_forward", op.bias);
  params.to_element = element_of("linear_forward", op.out);
  params.accumulate = op.accumulate;
  params.wide = rows_of_16_bytes({op.bias, op.out});
  check_cuda(launch_rows(params, stream_of(context)), "launching the bias of linear_forward");
}

// An fp32 gradient beside bf16 tensors, rounded to bf16: products have factors of one type.
TensorView rounded(const Context& context, const TensorView& dout) {
  const TensorView copy = context.scratch->take(DType::bf16, {dout.shape[0], dout.shape[1]});
  RowsParams params;
  params.from = matrix_of(dout);
  params.to = matrix_of(copy);
  params.rows = dout.shape[0];
  params.width = dout.shape[1];
  params.from_element = Element::f32;
  params.to_element = Element::bf16;
  params.wide = rows_of_16_bytes({dout, copy});
  check_cuda(launch_rows(params, stream_of(context)), "launching the rounding of linear_backward");
  return copy;
}

void add_bias_gradient(const Context& context, const LinearBackward& op) {
  const ArenaScope scope(*context.scratch);
  ColumnSums sums;
  sums.x = matrix_of(op.dout);
  sums.rows = op.dout.shape[0];
  sums.width = op.dout.shape[1];
  sums.element = element_of("linear_backward", op.dout);
  sums.partials = take_scratch<float>(context, column_sum_chunks(sums.rows) * sums.width);
  sums.sums = op.dbias.data;
  sums.sums_element = gradient_element(op.dbias);
  check_cuda(launch_column_sums(sums, stream_of(context)), "launching the bias gradient of linear_backward");
}

}  // namespace

void linear_forward(const Context& context, const LinearForward& op) {
  const Element element = element_of("linear_forward", op.x);
  if (op.bias) add_bias(context, op);
  matmul(context, {.m = op.x.shape[0],
                   .n = op.weight.shape[0],
                   .k = op.x.shape[1],
                   .a = op.x.data,
                   .lda = leading_dimension(op.x),
                   .b = op.weight.data,
                   .ldb = leading_dimension(op.weight),
                   .transpose_b = true,
                   .c = op.out.data,
                   .ldc = leading_dimension(op.out),
                   .element = element,
                   .result = element_of("linear_forward", op.out),
                   .accumulate = op.bias || op.accumulate});
}

void linear_backward(const Context& context, const LinearBackward& op) {
  const ArenaScope scope(*context.scratch);
  if (op.dbias) add_bias_gradient(context, op);
  if (!op.dx && !op.dweight) return;
  const Element element = element_of("linear_backward", op.dx ? op.weight : op.x);
  const bool mixed = op.dout.dtype == DType::f32 && element == Element::bf16;
  const TensorView dout = mixed ? rounded(context, op.dout) : op.dout;
  if (op.dx)
    matmul(context, {.m = dout.shape[0],
                     .n = op.weight.shape[1],
                     .k = dout.shape[1],
                     .a = dout.data,
                     .lda = leading_dimension(dout),
                     .b = op.weight.data,
                     .ldb = leading_dimension(op.weight),
                     .c = op.dx.data,
                     .ldc = leading_dimension(op.dx),
                     .element = element,
                     .result = element,
                     .accumulate = op.accumulate_dx});
  if (op.dweight)
    matmul(context, {.m = dout.shape[1],
                     .n = op.x.shape[1],
                     .k = dout.shape[0],
                     .a = dout.data,
                     .lda = leading_dimension(dout),
                     .transpose_a = true,
                     .b = op.x.data,
                     .ldb = leading_dimension(op.x),
                     .c = op.dweight.data,
                     .ldc = leading_dimension(op.dweight),
                     .element = element,
                     .result = gradient_element(op.dweight),
                     .accumulate = true});
}

}  // namespace lathe::ops::cuda
