// A transformer layer as a schedule sees it: five stages cut at the expert exchange, so that another micro-batch's
// compute can run while one's tokens travel. The model implements them and does the maths; a schedule orders them and
// owns what a micro-batch keeps between its forward and its backward.
#pragma once

#include <memory>
#include <vector>

#include "device/arena.h"

namespace lathe {

// Sequences that go through the model together: T = batch * sequence_length rows.
struct MicroBatch {
  std::int64_t batch = 0;
  std::int64_t sequence_length = 0;
  TensorView tokens;      // [T] i32
  TensorView targets;     // [T] i32, ops::kIgnoreIndex where none; not needed for logits
  TensorView positions;   // [T] i32
  TensorView cu_seqlens;  // [n + 1] i32: attention stays inside these ranges of the T rows; none: inside each sequence

  std::int64_t rows() const { return batch * sequence_length; }
};

// What one micro-batch keeps of one layer, with the arena that its tensors come from.
struct LayerState {
  LayerState(const MicroBatch& batch_of, Arena& arena) : batch(&batch_of), activations(&arena) {}
  virtual ~LayerState() = default;

  const MicroBatch* batch;
  Arena* activations;
};

class StagedLayer {
 public:
  virtual ~StagedLayer() = default;

  virtual std::unique_ptr<LayerState> make_state(const MicroBatch& batch, Arena& activations) const = 0;

  // x: [T, H], the residual stream; kept until the backward is done.
  virtual void attention_forward(LayerState& state, const TensorView& x) const = 0;
  virtual void dispatch_forward(LayerState& state) const = 0;  // tokens go to their experts
  virtual void experts_forward(LayerState& state) const = 0;
  virtual void combine_forward(LayerState& state) const = 0;          // the experts' results come back
  virtual TensorView aggregate_forward(LayerState& state) const = 0;  // [T, H]

  // In reverse. dout: [T, H], overwritten; the result is the gradient of x, in the same memory.
  virtual void aggregate_backward(LayerState& state, const TensorView& dout) const = 0;
  virtual void combine_backward(LayerState& state) const = 0;
  virtual void experts_backward(LayerState& state) const = 0;
  virtual void dispatch_backward(LayerState& state) const = 0;
  virtual TensorView attention_backward(LayerState& state) const = 0;
};

}  // namespace lathe
