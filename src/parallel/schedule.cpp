#include "parallel/schedule.h"

namespace lathe {

TensorView forward_layers(Layers layers, const MicroBatch& batch, const TensorView& x, Arena& activations,
                          LayerStates& states) {
  TensorView hidden = x;
  for (const auto& layer : layers) {
    states.push_back(layer->make_state(batch, activations));
    LayerState& state = *states.back();
    layer->attention_forward(state, hidden);
    layer->dispatch_forward(state);
    layer->experts_forward(state);
    layer->combine_forward(state);
    hidden = layer->aggregate_forward(state);
  }
  return hidden;
}

TensorView backward_layers(Layers layers, const TensorView& dout, LayerStates& states) {
  TensorView gradient = dout;
  for (std::size_t index = layers.size(); index-- > 0;) {
    LayerState& state = *states[index];
    const ArenaScope scope(*state.activations);
    layers[index]->aggregate_backward(state, gradient);
    layers[index]->combine_backward(state);
    layers[index]->experts_backward(state);
    layers[index]->dispatch_backward(state);
    gradient = layers[index]->attention_backward(state);
    states[index].reset();
  }
  return gradient;
}

}  // namespace lathe
