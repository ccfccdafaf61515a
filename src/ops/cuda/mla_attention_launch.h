#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

// Dense [b, s, h, d] and packed [total, h, d] tensors alike; of lse [b, h, s] or [h, total].
struct AttentionOperand {
  void* data = nullptr;
  std::int64_t batch = 0, token = 0, head = 0;  // strides

  template <typename T>
#ifdef __CUDACC__
  __device__
#endif
      T*
      at(std::int64_t batch_index, std::int64_t token_index, std::int64_t head_index) const {
    return static_cast<T*>(data) + batch_index * batch + token_index * token + head_index * head;
  }
};

struct AttentionParams {
  AttentionOperand q_nope, q_pe, k_nope, k_pe, v, out, lse;
  AttentionOperand dout, dlse, dq_nope, dq_pe, dk_nope, dk_pe, dv;  // dlse may be none
  const std::int32_t* cu_seqlens_q = nullptr;                       // [sequences + 1], or none for dense tensors
  const std::int32_t* cu_seqlens_k = nullptr;
  std::int64_t sequences = 0, s_q = 0, s_k = 0;  // s: of a sequence, or the totals of packed ones
  int heads = 0, nope = 0, rope = 0, value = 0;
  float scale = 0;
  bool causal = true;
  Element element = Element::f32;
  float* delta = nullptr;        // [query rows, heads], scratch
  float* dk_pe_parts = nullptr;  // [key rows, heads, rope], scratch
};

cudaError_t launch_attention_forward(const AttentionParams& params, cudaStream_t stream);
cudaError_t launch_attention_backward(const AttentionParams& params, cudaStream_t stream);

}  // namespace lathe::ops::cuda
