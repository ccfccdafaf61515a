// DeepSeek-V2 for causal language modelling: embedding, layers, norm, head; forward and backward written by hand.
#pragma once

#include <memory>
#include <vector>

#include "device/arena.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/parameters.h"
#include "ops/context.h"
#include "parallel/schedule.h"

namespace lathe {

// Rows of logits at a time, of `rows` in all. Every chunk reads and writes the whole fp32 gradient of the head, so on a
// GPU there are as few as 2 GiB of logits allow, of one size. On the CPU 256 MB are enough for a full-speed product.
std::int64_t head_chunk_rows(std::int64_t vocab_size, std::int64_t rows, DeviceKind device);

class Model {
 public:
  // `weights` and `gradients` are flat (ParameterLayout); gradients may be none where no backward is run. Activations
  // have the weights' dtype; gradients are at least fp32.
  // Positions from 0 to below `max_positions` can be used. All references outlive the model.
  Model(const ModelConfig& config, const ParameterLayout& layout, const ops::Context& ops, Arena& activations,
        const TensorView& weights, const TensorView& gradients, std::int64_t max_positions);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Adds scale * (sum of the targets' cross-entropies) to `loss` [1] f64, the balance loss to its own, and the gradient
  // of both to the gradients.
  void forward_backward(const MicroBatch& batch, double scale, const TensorView& loss, const BalanceLoss& balance);

  // The same loss without gradient or balance.
  void forward_loss(const MicroBatch& batch, double scale, const TensorView& loss);

  // out: [T, V], at least fp32.
  void forward_logits(const MicroBatch& batch, const TensorView& out);

  // Generation. The caches hold `capacity` tokens; decode appends `tokens` [T] i32 at positions length, length + 1, ...
  // and writes the last one's logits, [1, V], at least fp32.
  std::vector<LatentCache> make_caches(Arena& arena, std::int64_t capacity) const;
  void decode(const TensorView& tokens, const TensorView& positions, std::int64_t length,
              const std::vector<LatentCache>& caches, const TensorView& logits);

 private:
  TensorView embed(const TensorView& tokens);
  TensorView final_norm(const TensorView& x, const TensorView& rstd);
  // Runs the head in chunks of rows so that the logits are never whole. dnormed: [T, H], written; none: no gradient.
  void head_loss(const MicroBatch& batch, const TensorView& normed, double scale, const TensorView& loss,
                 const TensorView& dnormed);

  const ModelConfig& config_;
  ops::Context ops_;
  Arena& activations_;
  ModelParameters weights_;
  ModelParameters gradients_;
  Buffer rope_memory_;
  RopeViews rope_;
  const BalanceLoss* balance_ = nullptr;  // of the micro-batch under way
  std::vector<std::unique_ptr<StagedLayer>> layers_;
};

}  // namespace lathe
