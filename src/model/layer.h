// One DeepSeek-V2 layer as five stages: x + attention(norm(x)), then that sum + MLP(norm(sum)).
#pragma once

#include "model/attention.h"
#include "model/moe.h"
#include "parallel/stages.h"

namespace lathe {

struct DeepseekLayerState final : LayerState {
  using LayerState::LayerState;

  TensorView x;             // [T, H], the layer's input
  TensorView normed, rstd;  // of the input
  AttentionState attention;
  TensorView sum, normed2, rstd2;  // x + attention, and its norm
  MlpState mlp;                    // dense or shared
  TensorView mlp_out;              // [T, H]: the shared experts' output; of a dense layer, the layer's
  MoeState moe;
  TensorView dout, dnormed2;  // in the backward
};

class DeepseekLayer final : public StagedLayer {
 public:
  // `balance` is read at each forward; null: no balance loss. All references outlive the layer.
  DeepseekLayer(const ModelConfig& config, const ops::Context& ops, const LayerParameters& weights,
                const LayerParameters& gradients, const RopeViews& rope, std::int64_t index,
                const BalanceLoss* const* balance);

  std::unique_ptr<LayerState> make_state(const MicroBatch& batch, Arena& activations) const override;
  void attention_forward(LayerState& state, const TensorView& x) const override;
  void dispatch_forward(LayerState& state) const override;
  void experts_forward(LayerState& state) const override;
  void combine_forward(LayerState& state) const override;
  TensorView aggregate_forward(LayerState& state) const override;
  void aggregate_backward(LayerState& state, const TensorView& dout) const override;
  void combine_backward(LayerState& state) const override;
  void experts_backward(LayerState& state) const override;
  void dispatch_backward(LayerState& state) const override;
  TensorView attention_backward(LayerState& state) const override;

  // Generation: x [T, H] at `positions`, after the `length` rows in the cache. The result is in `arena`.
  TensorView decode(const TensorView& x, const TensorView& positions, std::int64_t length, const LatentCache& cache,
                    Arena& arena) const;

 private:
  // x and its norm: what both kinds of forward begin with.
  void enter_attention(DeepseekLayerState& state, const TensorView& x) const;
  // From x and the attention's output `attended` to the router's choice: all that both kinds of forward share.
  void enter_mlp(DeepseekLayerState& state, const TensorView& attended) const;

  const ModelConfig& config_;
  const ops::Context& ops_;
  LayerParameters weights_;
  LayerParameters gradients_;
  Attention attention_;
  Moe moe_;
  bool dense_;
  const BalanceLoss* const* balance_;
};

}  // namespace lathe
