#include "ops/grouped_linear.h"

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm_batch.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/transpose.h"

namespace lathe::ops::cpu {
namespace {

void check_offsets(std::string_view op, const TensorView& offsets, std::int64_t rows) {
  const std::int32_t* offset = offsets.as<std::int32_t>();
  const std::int64_t groups = offsets.shape[0] - 1;
  if (offset[0] != 0) fail("{}: offset 0 is {}, expected 0", op, offset[0]);
  for (std::int64_t e = 0; e < groups; ++e)
    if (offset[e + 1] < offset[e] || offset[e + 1] > rows)
      fail("{}: offset {} is {}, expected [{}, {}]", op, e + 1, offset[e + 1], offset[e], rows);
}

// The rows of one group and its weight, [out, in].
template <typename T>
struct Group {
  Group(const TensorView& offsets, const TensorView& weights, std::int64_t index)
      : begin(offsets.as<std::int32_t>()[index]),
        rows(offsets.as<std::int32_t>()[index + 1] - begin),
        weight(weights.as<T>() + index * weights.strides[0]) {}

  std::int64_t begin;
  std::int64_t rows;
  T* weight;
};

// The weights of all groups with enough rows, each transposed to [in, stride].
template <typename T>
T* transposed_weights(const Context& context, const GroupedLinearForward& op, std::int64_t stride) {
  constexpr std::int64_t kColumnsPerChunk = 64;
  const std::int64_t out = op.weight.shape[1];
  const std::int64_t in = op.weight.shape[2];
  T* transposed = context.scratch->take(op.weight.dtype, {op.weight.shape[0], in, stride}).as<T>();
  const std::int64_t parts = (in + kColumnsPerChunk - 1) / kColumnsPerChunk;
  for_chunks(op.weight.shape[0] * parts, 1, [&](std::int64_t index, std::int64_t) {
    const Group<T> group(op.offsets, op.weight, index / parts);
    if (group.rows < kRowsWorthTransposing) return;
    const std::int64_t begin = index % parts * kColumnsPerChunk;
    transpose(group.weight + begin, leading_dimension(op.weight), out, std::min(kColumnsPerChunk, in - begin),
              transposed + (index / parts * in + begin) * stride, stride);
  });
  return transposed;
}

template <typename T>
void forward(const Context& context, const GroupedLinearForward& op) {
  const std::int64_t out = op.weight.shape[1];
  const std::int64_t in = op.weight.shape[2];
  const Rows<T> x(op.x);
  const Rows<T> result(op.out);
  const ArenaScope scope(*context.scratch);
  const std::int64_t stride = padded_stride(out);
  const T* transposed = transposed_weights<T>(context, op, stride);
  gemm_batch<T>(*context.scratch, op.weight.shape[0], [&](std::int64_t e) {
    const Group<T> group(op.offsets, op.weight, e);
    const bool copied = group.rows >= kRowsWorthTransposing;
    return Gemm<T>{
        .m = group.rows,
        .n = out,
        .k = in,
        .a = x[group.begin],
        .lda = leading_dimension(op.x),
        .b = copied ? transposed + e * in * stride : group.weight,
        .ldb = copied ? stride : leading_dimension(op.weight),
        .transpose_b = !copied,
        .c = result[group.begin],
        .ldc = leading_dimension(op.out),
    };
  });
}

template <typename T>
Gemm<T> input_gradient(const GroupedLinearBackward& op, const Group<T>& group) {
  return {
      .m = group.rows,
      .n = op.weight.shape[2],
      .k = op.weight.shape[1],
      .a = Rows<T>(op.dout)[group.begin],
      .lda = leading_dimension(op.dout),
      .b = group.weight,
      .ldb = leading_dimension(op.weight),
      .c = Rows<T>(op.dx)[group.begin],
      .ldc = leading_dimension(op.dx),
  };
}

template <typename T>
Gemm<T> weight_gradient(const GroupedLinearBackward& op, const Group<T>& group, std::int64_t index) {
  return {
      .m = op.weight.shape[1],
      .n = op.weight.shape[2],
      .k = group.rows,
      .a = Rows<T>(op.dout)[group.begin],
      .lda = leading_dimension(op.dout),
      .transpose_a = true,
      .b = Rows<T>(op.x)[group.begin],
      .ldb = leading_dimension(op.x),
      .c = op.dweight.as<T>() + index * op.dweight.strides[0],
      .ldc = leading_dimension(op.dweight),
      .beta = T{1},
  };
}

template <typename T>
void backward(const Context& context, const GroupedLinearBackward& op) {
  const std::int64_t groups = op.weight.shape[0];
  gemm_batch<T>(*context.scratch, 2 * groups, [&](std::int64_t i) {
    const std::int64_t e = i % groups;
    const Group<T> group(op.offsets, op.weight, e);
    return i < groups ? input_gradient(op, group) : weight_gradient(op, group, e);
  });
}

}  // namespace

void grouped_linear_forward(const Context& context, const GroupedLinearForward& op) {
  check_offsets("grouped_linear_forward", op.offsets, op.x.shape[0]);
  for_dtype(op.x, [&]<typename T>() { forward<T>(context, op); });
}

void grouped_linear_backward(const Context& context, const GroupedLinearBackward& op) {
  check_offsets("grouped_linear_backward", op.offsets, op.x.shape[0]);
  for_dtype(op.dout, [&]<typename T>() { backward<T>(context, op); });
}

}  // namespace lathe::ops::cpu
