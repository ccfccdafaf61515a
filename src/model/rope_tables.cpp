#include "model/rope_tables.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lathe {
namespace {

double mscale_of(double scale, double mscale) { return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0; }

std::vector<float> inverse_frequencies(const RopeConfig& rope, std::int64_t dim) {
  const auto width = static_cast<float>(dim);
  const std::int64_t half = dim / 2;
  std::vector<float> inverse(static_cast<std::size_t>(half));
  const auto base = static_cast<float>(rope.theta);
  for (std::int64_t i = 0; i < half; ++i)
    inverse[static_cast<std::size_t>(i)] = 1.0F / std::pow(base, static_cast<float>(2 * i) / width);
  if (!rope.yarn) return inverse;

  // The dimension whose wave turns `rotations` times within the original context.
  const auto dim_of = [&](double rotations) {
    const auto context = static_cast<double>(rope.original_max_position);
    return static_cast<double>(dim) * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = dim_of(rope.beta_fast);
  double high = dim_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (std::int64_t i = 0; i < half; ++i) {
    float& value = inverse[static_cast<std::size_t>(i)];
    const auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    value = value / static_cast<float>(rope.factor) * ramp + value * (1.0F - ramp);
  }
  return inverse;
}

}  // namespace

double rope_attention_factor(const RopeConfig& rope) {
  if (!rope.yarn) return 1.0;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0)
    return mscale_of(rope.factor, rope.mscale) / mscale_of(rope.factor, rope.mscale_all_dim);
  return mscale_of(rope.factor, 1.0);
}

double default_softmax_scale(const ModelConfig& config) {
  double scale = 1.0 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (config.rope.yarn && config.rope.mscale_all_dim != 0)
    scale *= std::pow(mscale_of(config.rope.factor, config.rope.mscale_all_dim), 2.0);
  return scale;
}

RopeTables make_rope_tables(const ModelConfig& config, std::int64_t count) {
  const std::vector<float> inverse = inverse_frequencies(config.rope, config.qk_rope_head_dim);
  const auto factor = static_cast<float>(rope_attention_factor(config.rope));
  RopeTables tables;
  tables.cos.reserve(static_cast<std::size_t>(count) * inverse.size());
  tables.sin.reserve(static_cast<std::size_t>(count) * inverse.size());
  for (std::int64_t position = 0; position < count; ++position) {
    for (const float frequency : inverse) {
      const float angle = static_cast<float>(position) * frequency;
      tables.cos.push_back(std::cos(angle) * factor);
      tables.sin.push_back(std::sin(angle) * factor);
    }
  }
  return tables;
}

}  // namespace lathe
