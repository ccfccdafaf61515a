#include "ops/embedding.h"

#include <algorithm>
#include <cstring>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/rows.h"

namespace lathe::ops::cpu {
namespace {

void check_tokens(std::string_view op, const TensorView& tokens, std::int64_t vocab) {
  const std::int32_t* token = tokens.as<std::int32_t>();
  for (std::int64_t t = 0; t < tokens.shape[0]; ++t)
    if (token[t] < 0 || token[t] >= vocab) fail("{}: token {} is {}, expected [0, {})", op, t, token[t], vocab);
}

template <typename T>
void forward(const EmbeddingForward& op) {
  constexpr std::int64_t kTokensPerChunk = 128;
  const std::int32_t* tokens = op.tokens.as<std::int32_t>();
  const Rows<const T> table(op.table);
  const Rows<T> out(op.out);
  const auto bytes = static_cast<std::size_t>(op.table.shape[1]) * sizeof(T);
  for_chunks(op.tokens.shape[0], kTokensPerChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) std::memcpy(out[t], table[tokens[t]], bytes);
  });
}

// Threads share the columns, so that every element is summed in the order of the tokens.
template <typename T>
void backward(const EmbeddingBackward& op) {
  constexpr std::int64_t kColumnsPerChunk = 64;
  const std::int32_t* tokens = op.tokens.as<std::int32_t>();
  const Rows<const T> dout(op.dout);
  const Rows<T> dtable(op.dtable);
  for_chunks(op.dtable.shape[1], kColumnsPerChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < op.tokens.shape[0]; ++t) {
      if (tokens[t] == op.padding_idx) continue;
      const T* from = dout[t];
      T* to = dtable[tokens[t]];
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

}  // namespace

void embedding_forward(const Context&, const EmbeddingForward& op) {
  check_tokens("embedding_forward", op.tokens, op.table.shape[0]);
  for_dtype(op.table, [&]<typename T>() { forward<T>(op); });
}

void embedding_backward(const Context&, const EmbeddingBackward& op) {
  check_tokens("embedding_backward", op.tokens, op.dtable.shape[0]);
  for_dtype(op.dtable, [&]<typename T>() { backward<T>(op); });
}

}  // namespace lathe::ops::cpu
