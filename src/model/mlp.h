// The gated MLP of a dense layer, and of the shared experts: down(silu(gate x) * up x).
#pragma once

#include "model/parameters.h"
#include "ops/context.h"

namespace lathe {

struct MlpState {
  TensorView x;        // [T, H]
  TensorView gate_up;  // [T, 2 I]
  TensorView act;      // [T, I]
};

// out: [T, H], written, or added to with `accumulate`.
void mlp_forward(const ops::Context& ops, const LayerParameters& weights, const TensorView& x, const TensorView& out,
                 bool accumulate, MlpState& state, Arena& arena);
// dx: [T, H], written, or added to with `accumulate`. Overwrites the state's gate_up.
void mlp_backward(const ops::Context& ops, const LayerParameters& weights, const LayerParameters& gradients,
                  const MlpState& state, const TensorView& dout, const TensorView& dx, bool accumulate, Arena& arena);

}  // namespace lathe
