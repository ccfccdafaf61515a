// Multi-head latent attention (DeepSeek-V2, section 2.1) with the projections around it.
#pragma once

#include "model/config.h"
#include "model/parameters.h"
#include "ops/context.h"
#include "parallel/stages.h"

namespace lathe {

// cos and sin of every position, on the device.
struct RopeViews {
  TensorView cos;  // [positions, dr / 2] fp32
  TensorView sin;
};

// What the backward needs of the forward. T rows.
struct AttentionState {
  TensorView x;                          // [T, H], input of the projections
  TensorView q_a, q_a_normed, q_a_rstd;  // with q_lora_rank: [T, rq], [T, rq], [T]
  TensorView q;                          // [T, h (dn + dr)], rope applied
  TensorView kv_a;                       // [T, r + dr]: latent, and k_pe with rope applied
  TensorView latent, latent_rstd;        // [T, r] normed, [T]
  TensorView kv;                         // [T, h (dn + dv)]
  TensorView out;                        // [T, h dv]
  TensorView lse;                        // [b, h, s], or [h, T] packed
};

// The latents of all tokens so far of one layer and one sequence, for generation: no key or value is stored.
struct LatentCache {
  TensorView latent;  // [capacity, r], normed
  TensorView k_pe;    // [capacity, dr], rope applied
};

class Attention {
 public:
  Attention(const ModelConfig& config, const ops::Context& ops, const LayerParameters& weights,
            const LayerParameters& gradients, const RopeViews& rope)
      : config_(config), ops_(ops), weights_(weights), gradients_(gradients), rope_(rope) {}

  // x: [T, H] normed; out: [T, H], written. The state's tensors come from `arena`.
  void forward(const MicroBatch& batch, const TensorView& x, const TensorView& out, AttentionState& state,
               Arena& arena) const;
  // dout: [T, H]; dx: [T, H], written.
  void backward(const MicroBatch& batch, const AttentionState& state, const TensorView& dout, const TensorView& dx,
                Arena& arena) const;

  // One sequence's next T rows at `positions` [T], which are `length`, `length` + 1, ...: they attend to the `length`
  // rows in the cache and to themselves, and are added to it. kv_b is absorbed into the queries and the output.
  void decode(const TensorView& x, const TensorView& positions, std::int64_t length, const LatentCache& cache,
              const TensorView& out, Arena& arena) const;

 private:
  // q [T, h (dn + dr)] with rope; kv_a; its normed latent in `latent` [T, r], or none: from the arena; its k_pe with
  // rope in `k_pe` [T, 1, dr], or none: in kv_a itself.
  void project(const TensorView& x, const TensorView& positions, const TensorView& latent, const TensorView& k_pe,
               AttentionState& state, Arena& arena) const;
  void rotate(const TensorView& x, const TensorView& out, const TensorView& positions, bool transpose) const;

  const ModelConfig& config_;
  const ops::Context& ops_;
  LayerParameters weights_;
  LayerParameters gradients_;
  RopeViews rope_;
};

}  // namespace lathe
