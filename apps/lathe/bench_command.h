// `lathe bench attention`
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t seqlen = 0;
  bool causal = true;
};

// "1x2048,4x4096:full"; :full is without a mask.
std::vector<AttentionShape> parse_attention_shapes(std::string_view flag, std::string_view text);

struct BenchAttentionOptions {
  std::string device = "auto";
  std::string backend = "all";
  std::vector<AttentionShape> shapes;  // none: the device's own
  std::int64_t heads = 0;              // 0: the device's own
  std::string pass = "all";            // forward, backward, backward_deterministic or all
  std::string regime = "all";          // burst, sustained or all
};

void run_bench_attention(const BenchAttentionOptions& options);

}  // namespace lathe
