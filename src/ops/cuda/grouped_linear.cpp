#include "ops/grouped_linear.h"

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/device_facts.h"
#include "ops/cuda/grouped_linear_launch.h"
#include "ops/cuda/matrix_map.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

// True if tensor cores can take all of these.
bool tensor_cores_take(std::initializer_list<TensorView> tensors, Element element) {
  return element == Element::bf16 && rows_of_16_bytes(tensors);
}

template <typename Op>
GroupedParams params_for(std::string_view name, const Op& op, const TensorView& x, const TensorView& y,
                         const TensorView& weight) {
  GroupedParams params;
  params.offsets = op.offsets.template as<std::int32_t>();
  params.groups = static_cast<int>(weight.shape[0]);
  params.out = static_cast<int>(weight.shape[1]);
  params.in = static_cast<int>(weight.shape[2]);
  params.x = matrix_of(x);
  params.y = matrix_of(y);
  params.weight = weight.data;
  params.weight_group = weight.strides[0];
  params.weight_row = weight.strides[1];
  params.element = element_of(name, x);
  params.weight_element = gradient_element(weight);
  return params;
}

// Cuts the groups' rows into tiles, on the device, which alone knows the offsets. Scratch memory.
void list_row_tiles(const Context& context, GroupedParams& params, std::int64_t rows, int tile_rows) {
  params.most_tiles = static_cast<int>(rows / tile_rows) + params.groups;
  auto* tiles = reinterpret_cast<RowTile*>(take_scratch<std::int32_t>(context, 3 * std::int64_t{params.most_tiles}));
  check_cuda(launch_list_row_tiles(params, tile_rows, tiles, stream_of(context)), "launching the list of row tiles");
  params.tiles = tiles;
}

// How tensor cores read the factors of a product: the result's rows are of `a`, its columns of `b`. And how they add to
// a weight's gradient.
GroupedMaps maps_for(GroupedProduct product, const TensorView& a, const TensorView& b, const TensorView& gradient) {
  const int depth = tensor_depth(product);
  const int a_rows = product == GroupedProduct::weight_gradient ? depth : kTensorGroupRows;
  const int b_rows = product == GroupedProduct::forward ? kTensorColumns : depth;
  const bool boxes = gradient && gradient.dtype == DType::f32;
  return {matrix_map(a, a_rows), matrix_map(b, b_rows), boxes ? matrix_map(gradient, kTensorGroupRows) : CUtensorMap{}};
}

void run(const Context& context, GroupedProduct product, const GroupedParams& params, const TensorView& a,
         const TensorView& b, bool tensor_cores, const TensorView& gradient = {}) {
  check_cuda(tensor_cores ? launch_grouped_tensor(product, maps_for(product, a, b, gradient), params,
                                                  current_device().multiprocessors, stream_of(context))
                          : launch_grouped_plain(product, params, stream_of(context)),
             "launching a grouped product");
}

// Whether tensor maps can be made of the weight and of `rows` rows: a product over nothing is for the plain kernel.
bool nonempty(const GroupedParams& params, std::int64_t rows) {
  return rows > 0 && params.groups > 0 && params.in > 0 && params.out > 0;
}

}  // namespace

void grouped_linear_forward(const Context& context, const GroupedLinearForward& op) {
  const std::int64_t rows = op.x.shape[0];
  GroupedParams params = params_for("grouped_linear_forward", op, op.x, op.out, op.weight);
  if (rows == 0 || params.groups == 0 || params.out == 0) return;
  const ArenaScope scope(*context.scratch);
  const bool tensor_cores = nonempty(params, rows) && tensor_cores_take({op.x, op.weight, op.out}, params.element);
  list_row_tiles(context, params, rows, tensor_cores ? kTensorRows : kPlainRows);
  run(context, GroupedProduct::forward, params, op.x, op.weight, tensor_cores);
}

void grouped_linear_backward(const Context& context, const GroupedLinearBackward& op) {
  const std::int64_t rows = op.x.shape[0];
  GroupedParams inputs = params_for("grouped_linear_backward", op, op.dx, op.dout, op.weight);
  if (rows == 0 || inputs.groups == 0 || inputs.in == 0) return;
  const ArenaScope scope(*context.scratch);
  const bool tensor_cores =
      nonempty(inputs, rows) && tensor_cores_take({op.x, op.dout, op.weight, op.dx, op.dweight}, inputs.element);
  list_row_tiles(context, inputs, rows, tensor_cores ? kTensorRows : kPlainRows);
  run(context, GroupedProduct::input_gradient, inputs, op.dout, op.weight, tensor_cores);
  if (inputs.out == 0) return;
  run(context, GroupedProduct::weight_gradient, params_for("grouped_linear_backward", op, op.x, op.dout, op.dweight),
      op.dout, op.x, tensor_cores, op.dweight);
}

}  // namespace lathe::ops::cuda
