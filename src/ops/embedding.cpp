#include "ops/embedding.h"

#include "ops/checks.h"

namespace lathe::ops {

void embedding_forward(const Context& context, const EmbeddingForward& op) {
  constexpr std::string_view kName = "embedding_forward";
  check_rank(kName, "tokens", op.tokens, 1);
  check_rank(kName, "table", op.table, 2);
  check_floating(kName, "table", op.table);
  const std::int64_t tokens = op.tokens.shape[0];
  const std::int64_t hidden = op.table.shape[1];
  check_tensor(kName, "tokens", op.tokens, context, DType::i32, {tokens});
  check_tensor(kName, "table", op.table, context, op.table.dtype, {op.table.shape[0], hidden});
  check_tensor(kName, "out", op.out, context, op.table.dtype, {tokens, hidden});
  dispatch(kName, &Table::embedding_forward, context, op);
}

void embedding_backward(const Context& context, const EmbeddingBackward& op) {
  constexpr std::string_view kName = "embedding_backward";
  check_rank(kName, "tokens", op.tokens, 1);
  check_rank(kName, "dtable", op.dtable, 2);
  check_rank(kName, "dout", op.dout, 2);
  check_floating(kName, "dout", op.dout);
  const std::int64_t tokens = op.tokens.shape[0];
  const std::int64_t vocab = op.dtable.shape[0];
  const std::int64_t hidden = op.dtable.shape[1];
  check_tensor(kName, "tokens", op.tokens, context, DType::i32, {tokens});
  check_tensor(kName, "dtable", op.dtable, context, dtype_or_f32(op.dtable, op.dout.dtype), {vocab, hidden});
  check_tensor(kName, "dout", op.dout, context, op.dout.dtype, {tokens, hidden});
  check(op.padding_idx >= -1 && op.padding_idx < vocab, "{}: padding_idx is {}, expected -1 or a row of [0, {})", kName,
        op.padding_idx, vocab);
  dispatch(kName, &Table::embedding_backward, context, op);
}

}  // namespace lathe::ops
