// Weights between memory and folders in Hugging Face's layout.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/tensor_folder.h"
#include "train/session.h"

namespace lathe {

// The model of a folder: its config.json, and what a checkpoint's state.json adds to it.
ModelConfig read_folder_config(const std::filesystem::path& folder);

// Throws InputError unless the folder holds exactly the model's tensors, with their shapes: missing ones (the first 20
// by name), unexpected ones, wrong shapes.
void require_model_tensors(const TensorFolder& folder, const ModelConfig& config, const ParameterLayout& layout);

// Fills the session's weights and masters; the folder has been checked.
void read_weights(const TensorFolder& folder, Session& session);

// model.safetensors (or shards), config.json and generation_config.json.
void write_model_folder(const std::filesystem::path& folder, const ModelConfig& config, const ParameterLayout& layout,
                        Session& session);

// config.json and generation_config.json; torch_dtype says what the weights are stored in.
void write_config_files(const std::filesystem::path& folder, const ModelConfig& config, std::string_view torch_dtype);

// Copies tokenizer.json and what belongs to it, if `from` has them.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

// The tokenizer of a model folder: its tokenizer.json, else bytes.
std::string tokenizer_of(const std::filesystem::path& folder);

// A model folder again, bit for bit: `out` gets the tensors as they are stored, config.json in the released spelling,
// the tokenizer's files, and with `manifest` a manifest. Made beside and renamed; throws InputError if `out` exists and
// is not empty, before anything is written.
void copy_model_folder(const std::filesystem::path& from, const std::filesystem::path& out, bool manifest);

}  // namespace lathe
