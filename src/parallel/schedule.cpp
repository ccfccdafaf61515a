#include "parallel/schedule.h"

#include "device/trace.h"

namespace lathe {
namespace {

template <typename Stage>
auto traced(const char* name, const Stage& stage) {
  const TraceRange range(name);
  return stage();
}

}  // namespace

TensorView forward_layers(Layers layers, const MicroBatch& batch, const TensorView& x, Arena& activations,
                          LayerStates& states) {
  TensorView hidden = x;
  for (const auto& layer : layers) {
    states.push_back(layer->make_state(batch, activations));
    LayerState& state = *states.back();
    traced("attention forward", [&] { layer->attention_forward(state, hidden); });
    traced("dispatch forward", [&] { layer->dispatch_forward(state); });
    traced("experts forward", [&] { layer->experts_forward(state); });
    traced("combine forward", [&] { layer->combine_forward(state); });
    hidden = traced("aggregate forward", [&] { return layer->aggregate_forward(state); });
  }
  return hidden;
}

TensorView backward_layers(Layers layers, const TensorView& dout, LayerStates& states) {
  TensorView gradient = dout;
  for (std::size_t index = layers.size(); index-- > 0;) {
    const StagedLayer& layer = *layers[index];
    LayerState& state = *states[index];
    const ArenaScope scope(*state.activations);
    traced("aggregate backward", [&] { layer.aggregate_backward(state, gradient); });
    traced("combine backward", [&] { layer.combine_backward(state); });
    traced("experts backward", [&] { layer.experts_backward(state); });
    traced("dispatch backward", [&] { layer.dispatch_backward(state); });
    gradient = traced("attention backward", [&] { return layer.attention_backward(state); });
    states[index].reset();
  }
  return gradient;
}

}  // namespace lathe
