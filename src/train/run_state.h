// state.json of a checkpoint: all that a run needs besides weights and moments to go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lathe {

struct RunState {
  std::int64_t step = 0;
  std::int64_t consumed_samples = 0;
  std::int64_t updates = 0;  // steps whose gradient was finite
  std::uint64_t seed = 0;
  std::string toml;  // RunConfig::toml
  // What config.json cannot say of the model: [model] of run.toml.
  std::string norm_topk_prob = "refuse";
  double softmax_scale = 0;
};

bool has_run_state(const std::filesystem::path& folder);

void write_run_state(const std::filesystem::path& folder, const RunState& state);
// Throws InputError naming the file and field.
RunState read_run_state(const std::filesystem::path& folder);

}  // namespace lathe
