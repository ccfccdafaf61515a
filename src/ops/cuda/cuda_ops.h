// The CUDA implementations: tensors in bf16 or fp32, sums in fp32. Equal inputs give equal bits: sums have a fixed
// order and no atomic float. Nothing waits for the device, and memory comes from the context's scratch alone.
#pragma once

#include "ops/table.h"

namespace lathe::ops::cuda {

void embedding_forward(const Context& context, const EmbeddingForward& op);
void embedding_backward(const Context& context, const EmbeddingBackward& op);
void rms_norm_forward(const Context& context, const RmsNormForward& op);
void rms_norm_backward(const Context& context, const RmsNormBackward& op);
void linear_forward(const Context& context, const LinearForward& op);
void linear_backward(const Context& context, const LinearBackward& op);
void grouped_linear_forward(const Context& context, const GroupedLinearForward& op);
void grouped_linear_backward(const Context& context, const GroupedLinearBackward& op);
void swiglu_forward(const Context& context, const SwigluForward& op);
void swiglu_backward(const Context& context, const SwigluBackward& op);
void rope(const Context& context, const Rope& op);
void mla_attention_forward(const Context& context, const MlaAttentionForward& op);
void mla_attention_backward(const Context& context, const MlaAttentionBackward& op);
void router_forward(const Context& context, const RouterForward& op);
void router_backward(const Context& context, const RouterBackward& op);
void load_balance(const Context& context, const LoadBalance& op);
void permute_plan(const Context& context, const PermutePlan& op);
void permute_forward(const Context& context, const PermuteForward& op);
void permute_backward(const Context& context, const PermuteBackward& op);
void unpermute_forward(const Context& context, const UnpermuteForward& op);
void unpermute_backward(const Context& context, const UnpermuteBackward& op);
void cross_entropy(const Context& context, const CrossEntropy& op);
void adamw(const Context& context, const AdamW& op);
void sum_of_squares(const Context& context, const SumOfSquares& op);

}  // namespace lathe::ops::cuda
