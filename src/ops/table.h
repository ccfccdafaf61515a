// One pointer an op: the implementations of one device. `backends` fills it; the op's own function checks and calls it.
#pragma once

#include "ops/context.h"

namespace lathe::ops {

struct EmbeddingForward;
struct EmbeddingBackward;
struct RmsNormForward;
struct RmsNormBackward;
struct LinearForward;
struct LinearBackward;
struct GroupedLinearForward;
struct GroupedLinearBackward;
struct SwigluForward;
struct SwigluBackward;
struct Rope;
struct MlaAttentionForward;
struct MlaAttentionBackward;
struct RouterForward;
struct RouterBackward;
struct LoadBalance;
struct PermutePlan;
struct PermuteForward;
struct PermuteBackward;
struct UnpermuteForward;
struct UnpermuteBackward;
struct CrossEntropy;
struct AdamW;
struct SumOfSquares;

template <typename Params>
using Implementation = void (*)(const Context&, const Params&);

struct Table {
  Implementation<EmbeddingForward> embedding_forward = nullptr;
  Implementation<EmbeddingBackward> embedding_backward = nullptr;
  Implementation<RmsNormForward> rms_norm_forward = nullptr;
  Implementation<RmsNormBackward> rms_norm_backward = nullptr;
  Implementation<LinearForward> linear_forward = nullptr;
  Implementation<LinearBackward> linear_backward = nullptr;
  Implementation<GroupedLinearForward> grouped_linear_forward = nullptr;
  Implementation<GroupedLinearBackward> grouped_linear_backward = nullptr;
  Implementation<SwigluForward> swiglu_forward = nullptr;
  Implementation<SwigluBackward> swiglu_backward = nullptr;
  Implementation<Rope> rope = nullptr;
  Implementation<MlaAttentionForward> mla_attention_forward = nullptr;
  Implementation<MlaAttentionBackward> mla_attention_backward = nullptr;
  Implementation<RouterForward> router_forward = nullptr;
  Implementation<RouterBackward> router_backward = nullptr;
  Implementation<LoadBalance> load_balance = nullptr;
  Implementation<PermutePlan> permute_plan = nullptr;
  Implementation<PermuteForward> permute_forward = nullptr;
  Implementation<PermuteBackward> permute_backward = nullptr;
  Implementation<UnpermuteForward> unpermute_forward = nullptr;
  Implementation<UnpermuteBackward> unpermute_backward = nullptr;
  Implementation<CrossEntropy> cross_entropy = nullptr;
  Implementation<AdamW> adamw = nullptr;
  Implementation<SumOfSquares> sum_of_squares = nullptr;
};

}  // namespace lathe::ops
