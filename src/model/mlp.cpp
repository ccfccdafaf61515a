#include "model/mlp.h"

#include "ops/linear.h"
#include "ops/swiglu.h"

namespace lathe {

void mlp_forward(const ops::Context& ops, const LayerParameters& weights, const TensorView& x, const TensorView& out,
                 bool accumulate, MlpState& state, Arena& arena) {
  const std::int64_t width = weights.mlp_down.shape[1];
  state.x = x;
  state.gate_up = arena.take(x.dtype, {x.shape[0], 2 * width});
  state.act = arena.take(x.dtype, {x.shape[0], width});
  ops::linear_forward(ops,
                      {.x = x, .weight = weights.mlp_gate_up, .bias = weights.mlp_gate_up_bias, .out = state.gate_up});
  ops::swiglu_forward(ops, {.gate_up = state.gate_up, .out = state.act});
  ops::linear_forward(ops, {.x = state.act,
                            .weight = weights.mlp_down,
                            .bias = weights.mlp_down_bias,
                            .out = out,
                            .accumulate = accumulate});
}

void mlp_backward(const ops::Context& ops, const LayerParameters& weights, const LayerParameters& gradients,
                  const MlpState& state, const TensorView& dout, const TensorView& dx, bool accumulate, Arena& arena) {
  const TensorView dact = arena.take(dout.dtype, {dout.shape[0], state.act.shape[1]});
  ops::linear_backward(ops, {.dout = dout,
                             .x = state.act,
                             .weight = weights.mlp_down,
                             .dx = dact,
                             .dweight = gradients.mlp_down,
                             .dbias = gradients.mlp_down_bias});
  ops::swiglu_backward(ops, {.dout = dact, .gate_up = state.gate_up, .dgate_up = state.gate_up});
  ops::linear_backward(ops, {.dout = state.gate_up,
                             .x = state.x,
                             .weight = weights.mlp_gate_up,
                             .dx = dx,
                             .accumulate_dx = accumulate,
                             .dweight = gradients.mlp_gate_up,
                             .dbias = gradients.mlp_gate_up_bias});
}

}  // namespace lathe
