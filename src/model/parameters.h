// Where every parameter lives: one flat allocation laid out once, used alike for weights, gradients and moments.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "model/config.h"

namespace lathe {

// Views of one layer's parameters (or gradients, ...). What the config leaves out is none.
struct LayerParameters {
  TensorView input_norm;                     // [H]
  TensorView q_proj;                         // [h (dn + dr), H], or with q_lora_rank:
  TensorView q_a, q_a_bias, q_a_norm;        // [rq, H], [rq], [rq]
  TensorView q_b;                            // [h (dn + dr), rq]
  TensorView kv_a, kv_a_bias;                // [r + dr, H], [r + dr]
  TensorView kv_a_norm;                      // [r]
  TensorView kv_b;                           // [h (dn + dv), r]
  TensorView o_proj, o_bias;                 // [H, h dv], [H]
  TensorView post_norm;                      // [H]
  TensorView router;                         // [E, H]
  TensorView experts_gate_up;                // [E, 2 I, H]
  TensorView experts_down;                   // [E, H, I]
  TensorView mlp_gate_up, mlp_gate_up_bias;  // the dense or the shared MLP: [2 I, H], [2 I]
  TensorView mlp_down, mlp_down_bias;        // [H, I], [H]
};

struct ModelParameters {
  TensorView embedding;  // [V, H]
  std::vector<LayerParameters> layers;
  TensorView norm;     // [H]
  TensorView lm_head;  // [V, H]; the embedding itself when tied
};

class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);

  // A tensor of one op: one or more tensors on disk that lie next to each other in memory.
  struct Block {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset = 0;       // in elements
    bool one_dimensional = false;  // norms and biases: no weight decay
  };
  // A tensor on disk: rows of a block.
  struct Entry {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset = 0;
  };

  const std::vector<Block>& blocks() const { return blocks_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // Elements of the flat allocation; a few of them are padding, to be kept zero.
  std::int64_t size() const { return size_; }
  // Parameters of the model: all, and those that a token meets (embedding row aside, as the table is usually counted).
  std::int64_t total_parameters() const { return total_; }
  std::int64_t active_parameters() const { return active_; }

  ModelParameters bind(const TensorView& flat) const;
  // Every parameter under its name on disk.
  std::vector<NamedTensor> named(const TensorView& flat) const;

 private:
  class Builder;

  std::vector<Block> blocks_;
  std::vector<Entry> entries_;
  std::int64_t size_ = 0;
  std::int64_t total_ = 0;
  std::int64_t active_ = 0;
  std::int64_t num_layers_ = 0;
  bool tied_ = false;
};

// Fills a parameter on the host: N(0, std), norms 1, biases 0, the pad token's row 0. Depends on seed and name only.
void initialize_parameter(const ModelConfig& config, const NamedTensor& tensor, double std, std::uint64_t seed);

}  // namespace lathe
