// What every command that reads a model does first: find the folder, check all of it, name what was passed over.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_folder.h"
#include "train/session.h"

namespace lathe {

// A model folder, checked; no memory is taken for the weights yet.
struct OpenModel {
  ModelFolder folder;
  ModelConfig config;
  std::unique_ptr<TensorFolder> tensors;
  std::optional<std::int64_t> trained_length;  // training.sequence_length of the run that wrote it
  std::vector<std::string> warnings;           // to be printed once everything is checked
};

// A checkpoint, a run's folder or a Hugging Face folder. Throws InputError: no model, damaged files, a config or
// tensors that do not fit.
OpenModel open_model(const std::filesystem::path& folder);

// Where to run, by `--device` or training.device: what is "auto" is decided here.
Runtime make_runtime(const std::string& device);

// The model in memory, weights read. Prints the warnings.
std::unique_ptr<Session> load_model(const OpenModel& model, const Runtime& runtime, const Session::Options& options);

// Throws InputError naming the first of `tokens` outside the model's vocabulary.
void require_tokens_below(std::span<const std::int32_t> tokens, std::int64_t vocab_size, std::string_view flag);

}  // namespace lathe
