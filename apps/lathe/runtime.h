// Which device a command runs on, and a model ready there.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/session.h"

namespace lathe {

struct DeviceChoice {
  DeviceKind kind = DeviceKind::cpu;
  DType dtype = DType::f32;
  std::string reason;
};

// device: auto | cpu | cuda; dtype: auto | fp32 | bf16. Throws InputError for what this build or machine does not have;
// `setting` says in it what asked for the device, e.g. "training.device".
DeviceChoice choose_device(const std::string& device, const std::string& dtype, std::string_view setting);
Runtime make_runtime(const DeviceChoice& choice);

// A model read from a checkpoint, a run's folder or a Hugging Face folder.
struct LoadedModel {
  Runtime runtime;
  std::filesystem::path folder;
  std::unique_ptr<Session> session;
};

struct LoadOptions {
  std::string device = "auto";
  bool gradients = false;
  std::int64_t max_positions = 0;
};

// A model folder, opened and checked; nothing is allocated in proportion to the model yet.
struct OpenedModel {
  std::filesystem::path folder;
  ModelConfig config;
  std::vector<std::string> skipped;  // checkpoints passed over, and why
};
OpenedModel open_model(const std::filesystem::path& checkpoint);
// Warns of what was passed over. Called once all input is checked: an error is to be the only line.
void report_skipped(const OpenedModel& opened);
// Throws InputError naming the first token outside the vocabulary.
void require_tokens_in_vocabulary(std::span<const std::int32_t> tokens, const ModelConfig& config);
LoadedModel load_model(const OpenedModel& opened, const LoadOptions& options);

}  // namespace lathe
