// The mixture of experts of a layer (DeepSeek-V2, section 2.2), cut where tokens travel between ranks.
#pragma once

#include "model/config.h"
#include "model/mlp.h"
#include "model/parameters.h"
#include "ops/context.h"

namespace lathe {

// How a step's balance loss enters (docs/numerics.md). One object a step serves all layers and micro-batches.
struct BalanceLoss {
  enum class Scope { micro_batch, sequence, global_batch };
  Scope scope = Scope::global_batch;
  double coef_over_tokens = 0;  // coef / routed positions of the global batch; 0: off
  TensorView accumulated;       // [layers, E + 1] i64, for global_batch; zero at the step's start
  TensorView loss;              // [1] f64, added to by every layer and micro-batch
  bool force_balanced = false;  // the router ignores its scores' order (benchmarks)
};

struct MoeState {
  TensorView x;                // [T, H]
  TensorView scores;           // [T, E], at least fp32, as are weights and the gradients of both
  TensorView indices;          // [T, k] i32
  TensorView weights;          // [T, k]
  TensorView balance_dscores;  // [scopes, E] or none
  TensorView offsets;          // [E + 1] i32
  TensorView row_map;          // [T, k] i32
  TensorView sorted;           // [T k, H]: rows in the order of experts
  TensorView gate_up;          // [T k, 2 I]
  TensorView act;              // [T k, I]
  TensorView expert_out;       // [T k, H]
  TensorView dsorted;          // [T k, H], in the backward
  TensorView dweights;         // [T, k], in the backward
};

class Moe {
 public:
  Moe(const ModelConfig& config, const ops::Context& ops, const LayerParameters& weights,
      const LayerParameters& gradients, std::int64_t layer)
      : config_(config), ops_(ops), weights_(weights), gradients_(gradients), layer_(layer) {}

  // x: [T, H]. `sequences` of T rows together; balance: may be none (evaluation).
  void route(const TensorView& x, std::int64_t sequences, const BalanceLoss* balance, MoeState& state,
             Arena& arena) const;
  void dispatch(MoeState& state, Arena& arena) const;
  void experts(MoeState& state, Arena& arena) const;
  // out = residual + shared + the weighted experts. [T, H]
  void aggregate(const MoeState& state, const TensorView& residual, const TensorView& shared,
                 const TensorView& out) const;

  void aggregate_backward(MoeState& state, const TensorView& dout, Arena& arena) const;
  void experts_backward(MoeState& state, Arena& arena) const;
  // dx: [T, H], added to.
  void dispatch_backward(MoeState& state, const TensorView& dx) const;
  void route_backward(const MoeState& state, const TensorView& dx, Arena& arena) const;

 private:
  const ModelConfig& config_;
  const ops::Context& ops_;
  LayerParameters weights_;
  LayerParameters gradients_;
  std::int64_t layer_;
};

}  // namespace lathe
