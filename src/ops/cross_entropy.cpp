#include "ops/cross_entropy.h"

#include "ops/checks.h"

namespace lathe::ops {

void cross_entropy(const Context& context, const CrossEntropy& op) {
  constexpr std::string_view kName = "cross_entropy";
  check_rank(kName, "logits", op.logits, 2);
  check(op.logits.dtype == DType::f32 || op.logits.dtype == DType::f64, "{}: logits are {}, expected f32 or f64", kName,
        name_of(op.logits.dtype));
  const std::int64_t rows = op.logits.shape[0];
  const std::int64_t vocab = op.logits.shape[1];
  check(vocab > 0, "{}: logits have {} columns, expected at least 1", kName, vocab);
  check_tensor(kName, "logits", op.logits, context, op.logits.dtype, {rows, vocab});
  check_tensor(kName, "targets", op.targets, context, DType::i32, {rows});
  check_tensor(kName, "loss", op.loss, context, DType::f64, {1});
  if (op.dlogits) {
    const bool narrow = op.logits.dtype == DType::f32 && op.dlogits.dtype == DType::bf16;
    check_tensor(kName, "dlogits", op.dlogits, context, narrow ? DType::bf16 : op.logits.dtype, {rows, vocab});
  }
  dispatch(kName, &Table::cross_entropy, context, op);
}

}  // namespace lathe::ops
