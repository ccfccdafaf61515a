// The work that a call of an op asks for, from its tensors alone: nothing is read.
//
// Bytes are the least: each tensor that is given is read or written once, one that is added to both. Of tables only the
// rows that are looked up count. FLOPs are those of matrix products and attention; elementwise arithmetic counts none.
#pragma once

#include "device/work_recorder.h"
#include "ops/table.h"

namespace lathe::ops {

Work work_of(const EmbeddingForward& op);
// At most min(T, V) rows of dtable are added to, which is what counts.
Work work_of(const EmbeddingBackward& op);
Work work_of(const RmsNormForward& op);
Work work_of(const RmsNormBackward& op);
Work work_of(const LinearForward& op);
Work work_of(const LinearBackward& op);
// As if every row belonged to a group and every group had rows: the offsets lie on the device.
Work work_of(const GroupedLinearForward& op);
Work work_of(const GroupedLinearBackward& op);
Work work_of(const SwigluForward& op);
Work work_of(const SwigluBackward& op);
Work work_of(const Rope& op);
// Two products over the pairs of query and key, in the backward 2.5 times their FLOPs, as `lathe bench attention`
// counts; half of the pairs if causal. Packed sequences count as if they had equal lengths, which is never too much.
Work work_of(const MlaAttentionForward& op);
Work work_of(const MlaAttentionBackward& op);
Work work_of(const RouterForward& op);
Work work_of(const RouterBackward& op);
Work work_of(const LoadBalance& op);
Work work_of(const PermutePlan& op);
Work work_of(const PermuteForward& op);
Work work_of(const PermuteBackward& op);
Work work_of(const UnpermuteForward& op);
Work work_of(const UnpermuteBackward& op);
Work work_of(const CrossEntropy& op);
Work work_of(const AdamW& op);
Work work_of(const SumOfSquares& op);

}  // namespace lathe::ops
