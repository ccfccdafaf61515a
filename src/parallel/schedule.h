// The order in which one pipeline rank runs its layers' stages.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "parallel/stages.h"

namespace lathe {

using Layers = std::span<const std::unique_ptr<StagedLayer>>;
using LayerStates = std::vector<std::unique_ptr<LayerState>>;

// x through all layers; their states are appended to `states`.
TensorView forward_layers(Layers layers, const MicroBatch& batch, const TensorView& x, Arena& activations,
                          LayerStates& states);

// The gradient back through them; what a layer took from the arena in its backward is given back after it.
TensorView backward_layers(Layers layers, const TensorView& dout, LayerStates& states);

}  // namespace lathe
