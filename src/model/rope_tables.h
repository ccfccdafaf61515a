// The angles of rotary position embedding, with YaRN's scaling (Peng et al., 2023), and what it does to softmax_scale.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace lathe {

// What cos and sin are multiplied with: attention_factor, or m(f, mscale) / m(f, mscale_all_dim), or m(f, 1).
double rope_attention_factor(const RopeConfig& rope);

// (dn + dr)^-0.5, times m(f, mscale_all_dim)^2 under YaRN.
double default_softmax_scale(const ModelConfig& config);

struct RopeTables {
  std::vector<float> cos;  // [positions, dr / 2]
  std::vector<float> sin;
};

// For positions [0, count); fp32 throughout, as the reference computes them.
RopeTables make_rope_tables(const ModelConfig& config, std::int64_t count);

}  // namespace lathe
