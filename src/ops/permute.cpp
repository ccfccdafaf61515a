#include "ops/permute.h"

#include <limits>

#include "ops/checks.h"

namespace lathe::ops {
namespace {

struct Sizes {
  std::int64_t tokens;
  std::int64_t choices;  // of each token
  std::int64_t width;
};

// The sizes by `row_map` and `tokens`, a [T, H] tensor; both are checked.
Sizes check_tokens(std::string_view op, const Context& context, const TensorView& row_map, std::string_view name,
                   const TensorView& tokens) {
  check_rank(op, "row_map", row_map, 2);
  check_rank(op, name, tokens, 2);
  check_floating(op, name, tokens);
  const Sizes sizes{tokens.shape[0], row_map.shape[1], tokens.shape[1]};
  check_tensor(op, name, tokens, context, tokens.dtype, {sizes.tokens, sizes.width});
  check_tensor(op, "row_map", row_map, context, DType::i32, {sizes.tokens, sizes.choices});
  check(sizes.choices >= 1, "{}: row_map is {}: no choices", op, row_map.describe());
  return sizes;
}

// The router's weights are at least fp32.
DType weight_dtype(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

}  // namespace

void permute_plan(const Context& context, const PermutePlan& op) {
  constexpr std::string_view kName = "permute_plan";
  check_rank(kName, "indices", op.indices, 2);
  check_rank(kName, "offsets", op.offsets, 1);
  const std::int64_t tokens = op.indices.shape[0];
  const std::int64_t choices = op.indices.shape[1];
  check_tensor(kName, "indices", op.indices, context, DType::i32, {tokens, choices});
  check_tensor(kName, "row_map", op.row_map, context, DType::i32, {tokens, choices});
  check_tensor(kName, "offsets", op.offsets, context, DType::i32, {op.offsets.shape[0]});
  check(op.offsets.shape[0] >= 2, "{}: offsets is {}, expected one more than there are experts", kName,
        op.offsets.describe());
  check(op.indices.numel() <= std::numeric_limits<std::int32_t>::max(), "{}: {} x {} choices do not fit in 32 bits",
        kName, tokens, choices);
  dispatch(kName, &Table::permute_plan, context, op);
}

void permute_forward(const Context& context, const PermuteForward& op) {
  constexpr std::string_view kName = "permute_forward";
  const Sizes sizes = check_tokens(kName, context, op.row_map, "x", op.x);
  check_tensor(kName, "out", op.out, context, op.x.dtype, {sizes.tokens * sizes.choices, sizes.width});
  dispatch(kName, &Table::permute_forward, context, op);
}

void permute_backward(const Context& context, const PermuteBackward& op) {
  constexpr std::string_view kName = "permute_backward";
  const Sizes sizes = check_tokens(kName, context, op.row_map, "dx", op.dx);
  check_tensor(kName, "dout", op.dout, context, op.dx.dtype, {sizes.tokens * sizes.choices, sizes.width});
  dispatch(kName, &Table::permute_backward, context, op);
}

void unpermute_forward(const Context& context, const UnpermuteForward& op) {
  constexpr std::string_view kName = "unpermute_forward";
  const Sizes sizes = check_tokens(kName, context, op.row_map, "out", op.out);
  const DType dtype = op.out.dtype;
  check_tensor(kName, "x", op.x, context, dtype, {sizes.tokens * sizes.choices, sizes.width});
  check_tensor(kName, "weights", op.weights, context, weight_dtype(dtype), {sizes.tokens, sizes.choices});
  if (op.residual) check_tensor(kName, "residual", op.residual, context, dtype, {sizes.tokens, sizes.width});
  if (op.shared) check_tensor(kName, "shared", op.shared, context, dtype, {sizes.tokens, sizes.width});
  dispatch(kName, &Table::unpermute_forward, context, op);
}

void unpermute_backward(const Context& context, const UnpermuteBackward& op) {
  constexpr std::string_view kName = "unpermute_backward";
  const Sizes sizes = check_tokens(kName, context, op.row_map, "dout", op.dout);
  const DType dtype = op.dout.dtype;
  check_tensor(kName, "x", op.x, context, dtype, {sizes.tokens * sizes.choices, sizes.width});
  check_tensor(kName, "dx", op.dx, context, dtype, {sizes.tokens * sizes.choices, sizes.width});
  check_tensor(kName, "weights", op.weights, context, weight_dtype(dtype), {sizes.tokens, sizes.choices});
  check_tensor(kName, "dweights", op.dweights, context, weight_dtype(dtype), {sizes.tokens, sizes.choices});
  dispatch(kName, &Table::unpermute_backward, context, op);
}

}  // namespace lathe::ops
