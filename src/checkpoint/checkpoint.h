// A run's folder of checkpoints: `step-00000100/` and so on. Whatever is killed at whatever moment, a name either
// holds the old folder or the new one, never a mixture. One process at a time writes to a run's folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace lathe {

struct CheckpointFolder {
  std::int64_t step = 0;
  std::filesystem::path path;
};

// "step-00000100"
std::string checkpoint_name(std::int64_t step);

// Calls `fill` with a new temporary folder, adds the manifest, makes all of it durable and gives it its name in
// `run_folder`, which is made if need be. A folder of that step is replaced. Returns the checkpoint's path.
// If anything throws, nothing but a temporary folder is left.
std::filesystem::path write_checkpoint(const std::filesystem::path& run_folder, std::int64_t step,
                                       const std::function<void(const std::filesystem::path&)>& fill);

// Every folder named as a checkpoint, whole or not, by step; none if `run_folder` does not exist.
std::vector<CheckpointFolder> list_checkpoints(const std::filesystem::path& run_folder);

// Called, if not empty, with a checkpoint that is passed over: its name, and the file at fault with what is wrong.
using OnSkip = std::function<void(const std::string& name, const std::string& reason)>;

// The newest one whose files all match its manifest.
std::optional<CheckpointFolder> newest_good_checkpoint(const std::filesystem::path& run_folder,
                                                       const OnSkip& on_skip = {});

// Deletes what is older than the `keep` newest whole checkpoints (judged by their files' sizes), keep >= 1. The newest
// good one stays: it is `known_good`, a step that the caller has just written, or found by reading all files.
void prune_checkpoints(const std::filesystem::path& run_folder, std::int64_t keep,
                       std::optional<std::int64_t> known_good = std::nullopt);

// Removes what writers that were killed left behind. Only for the process that holds the run's lock.
void remove_temporary_folders(const std::filesystem::path& run_folder);

enum class ModelFolderKind { checkpoint, hugging_face };

struct ModelFolder {
  ModelFolderKind kind = ModelFolderKind::checkpoint;
  std::filesystem::path path;
};

// What a command's DIR stands for: a checkpoint (verified), a run's folder (its newest good checkpoint) or a Hugging
// Face folder. Throws InputError saying what is missing or damaged.
ModelFolder resolve_model_folder(const std::filesystem::path& folder, const OnSkip& on_skip = {});

}  // namespace lathe
