#include "ops/embedding.h"

#include <utility>

#include "ops/cuda/counting_sort.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/embedding_launch.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

constexpr int kBitsPerPass = 9;

// The positions ordered by token, equal ones by position: least significant bits first.
const std::int32_t* order_by_token(const Context& context, const std::int32_t* tokens, std::int64_t count,
                                   std::int64_t vocab) {
  CountingSort sort;
  sort.keys = tokens;
  sort.keys_stride = 1;
  sort.count = count;
  sort.buckets = 1 << kBitsPerPass;
  sort.mask = sort.buckets - 1;
  sort.counts = take_scratch<std::int32_t>(context, counting_sort_chunks(count) * sort.buckets);
  sort.starts = take_scratch<std::int32_t>(context, sort.buckets + 1);
  std::int32_t* order = take_scratch<std::int32_t>(context, count);
  std::int32_t* other = take_scratch<std::int32_t>(context, count);
  do {
    sort.order_out = order;
    check_cuda(launch_counting_sort(sort, stream_of(context)), "launching the order of embedding_backward");
    sort.order_in = order;
    std::swap(order, other);
    sort.shift += kBitsPerPass;
  } while (((vocab - 1) >> sort.shift) > 0);
  return sort.order_in;
}

}  // namespace

void embedding_forward(const Context& context, const EmbeddingForward& op) {
  EmbeddingParams params;
  params.tokens = op.tokens.as<std::int32_t>();
  params.table = matrix_of(op.table);
  params.rows = matrix_of(op.out);
  params.count = op.tokens.shape[0];
  params.vocab = op.table.shape[0];
  params.width = op.table.shape[1];
  params.element = element_of("embedding_forward", op.table);
  params.wide = rows_of_16_bytes({op.table, op.out});
  check_cuda(launch_embedding_forward(params, stream_of(context)), "launching embedding_forward");
}

void embedding_backward(const Context& context, const EmbeddingBackward& op) {
  const ArenaScope scope(*context.scratch);
  EmbeddingParams params;
  params.tokens = op.tokens.as<std::int32_t>();
  params.table = matrix_of(op.dtable);
  params.rows = matrix_of(op.dout);
  params.count = op.tokens.shape[0];
  params.vocab = op.dtable.shape[0];
  params.width = op.dtable.shape[1];
  params.padding_idx = op.padding_idx;
  params.element = element_of("embedding_backward", op.dout);
  params.table_element = gradient_element(op.dtable);
  params.wide = rows_of_16_bytes({op.dtable, op.dout});
  if (params.count == 0) return;
  params.order = order_by_token(context, params.tokens, params.count, params.vocab);
  check_cuda(launch_embedding_backward(params, stream_of(context)), "launching embedding_backward");
}

}  // namespace lathe::ops::cuda
