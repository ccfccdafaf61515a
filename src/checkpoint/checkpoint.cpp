#include "checkpoint/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "checkpoint/manifest.h"
#include "checkpoint/tensor_folder.h"
#include "core/error.h"
#include "core/file.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kTemporaryPrefix = ".tmp-";
constexpr std::size_t kMinDigits = 8;

fs::path temporary_path(const fs::path& run_folder, std::string_view name) {
  return run_folder / fmt::format("{}{}", kTemporaryPrefix, name);
}

// The step of "step-00000100"; none for any other name.
std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::int64_t step = 0;
  const auto result = std::from_chars(name.data(), name.data() + name.size(), step);
  if (result.ec != std::errc() || result.ptr != name.data() + name.size()) return std::nullopt;
  // Only the spelling that checkpoint_name gives, so that no two folders are of one step.
  if (step < 0 || name.size() < kMinDigits || (name.size() > kMinDigits && name[0] == '0')) return std::nullopt;
  return step;
}

void remove_folder(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(!error, "{}: cannot be removed: {}", path.string(), error.message());
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  check(!error, "{}: cannot be made: {}", path.string(), error.message());
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  check(!error, "{}: cannot be renamed to {}: {}", from.string(), to.string(), error.message());
}

// Takes the folder's name away at once, then its content.
void retire(const fs::path& run_folder, const fs::path& path) {
  const fs::path retired = temporary_path(run_folder, "old-" + path.filename().string());
  remove_folder(retired);
  rename_folder(path, retired);
  sync_directory(run_folder);
  remove_folder(retired);
}

// Gives `temporary` the name `path`; what stood there before ends under the temporary name.
void put_in_place(const fs::path& run_folder, const fs::path& temporary, const fs::path& path) {
  if (!fs::exists(fs::symlink_status(path))) return rename_folder(temporary, path);
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0) return;
  // Some file systems cannot exchange two names.
  check(errno == EINVAL || errno == ENOSYS || errno == EXDEV, "{}: cannot be replaced: {}", path.string(),
        std::strerror(errno));
  retire(run_folder, path);
  rename_folder(temporary, path);
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

fs::path write_checkpoint(const fs::path& run_folder, std::int64_t step,
                          const std::function<void(const fs::path&)>& fill) {
  const std::string name = checkpoint_name(step);
  const fs::path path = run_folder / name;
  const fs::path temporary = temporary_path(run_folder, name);
  make_folder(run_folder);
  remove_folder(temporary);
  make_folder(temporary);
  fill(temporary);
  write_manifest(temporary);
  put_in_place(run_folder, temporary, path);
  sync_directory(run_folder);
  remove_folder(temporary);
  return path;
}

std::vector<CheckpointFolder> list_checkpoints(const fs::path& run_folder) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  for (fs::directory_iterator it(run_folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    const auto step = step_of(it->path().filename().string());
    std::error_code ignored;
    if (step && it->is_directory(ignored)) found.push_back({*step, it->path()});
  }
  require(!error || error == std::errc::no_such_file_or_directory, "{}: cannot be read: {}", run_folder.string(),
          error.message());
  std::ranges::sort(found, {}, &CheckpointFolder::step);
  return found;
}

std::optional<CheckpointFolder> newest_good_checkpoint(const fs::path& run_folder, const OnSkip& on_skip) {
  auto folders = list_checkpoints(run_folder);
  for (; !folders.empty(); folders.pop_back()) {
    const auto bad = verify_manifest(folders.back().path);
    if (bad.empty()) return folders.back();
    if (on_skip) on_skip(folders.back().path.filename().string(), describe(bad));
  }
  return std::nullopt;
}

void prune_checkpoints(const fs::path& run_folder, std::int64_t keep, std::optional<std::int64_t> known_good) {
  check(keep >= 1, "cannot keep {} checkpoints: at least 1", keep);
  const auto folders = list_checkpoints(run_folder);
  std::size_t oldest_kept = folders.size();
  for (std::int64_t whole = 0; oldest_kept > 0 && whole < keep; --oldest_kept)
    if (verify_manifest(folders[oldest_kept - 1].path, VerifyDepth::sizes).empty()) ++whole;
  if (oldest_kept == 0) return;
  if (!known_good) {
    const auto good = newest_good_checkpoint(run_folder);
    if (!good) return;
    known_good = good->step;
  }
  for (std::size_t i = 0; i < oldest_kept; ++i)
    if (folders[i].step != *known_good) retire(run_folder, folders[i].path);
}

void remove_temporary_folders(const fs::path& run_folder) {
  std::vector<fs::path> stale;
  std::error_code error;
  for (fs::directory_iterator it(run_folder, error); !error && it != fs::directory_iterator(); it.increment(error))
    if (it->path().filename().string().starts_with(kTemporaryPrefix)) stale.push_back(it->path());
  for (const fs::path& path : stale) remove_folder(path);
}

ModelFolder resolve_model_folder(const fs::path& folder, const OnSkip& on_skip) {
  std::error_code error;
  require(fs::is_directory(folder, error), "{}: no such folder", folder.string());
  const bool has_model = fs::is_regular_file(folder / "config.json", error) && has_tensor_files(folder);
  const std::string name = fs::absolute(folder / "").lexically_normal().parent_path().filename().string();
  if (fs::exists(folder / kManifestName, error) || step_of(name) || name.starts_with(kTemporaryPrefix)) {
    const auto bad = verify_manifest(folder);
    require(bad.empty(), "{}: damaged checkpoint: {}", folder.string(), describe(bad));
    require(has_model, "{}: no model in this checkpoint: config.json or safetensors are missing", folder.string());
    return {ModelFolderKind::checkpoint, folder};
  }
  if (has_model) return {ModelFolderKind::hugging_face, folder};
  const std::size_t count = list_checkpoints(folder).size();
  if (const auto newest = newest_good_checkpoint(folder, on_skip)) return {ModelFolderKind::checkpoint, newest->path};
  require(count == 0, "{}: none of its {} checkpoints is whole", folder.string(), count);
  refuse(
      "{}: no model: neither a checkpoint ({}), nor a run's folder (step-*), nor a Hugging Face folder (config.json "
      "with model.safetensors or model.safetensors.index.json)",
      folder.string(), kManifestName);
}

}  // namespace lathe
