#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "core/error.h"
#include "lathe/commands.h"
#include "lathe/process.h"

namespace lathe {
namespace {
namespace fs = std::filesystem;

// Whether all files match; a line a bad file, a line for a whole folder.
bool verify_folder(const fs::path& folder) {
  const std::vector<BadFile> bad_files = verify_manifest(folder);
  for (const BadFile& bad : bad_files)
    print_error_line(fmt::format("{}: {}", (folder / bad.name).string(), bad.reason));
  if (bad_files.empty()) fmt::print("{}: all files match the manifest\n", folder.string());
  return bad_files.empty();
}

}  // namespace

int run_verify(const VerifyOptions& options) {
  std::error_code ignored;
  require(fs::is_directory(options.folder, ignored), "{}: expected a checkpoint's or a run's folder",
          options.folder.string());
  const std::vector<CheckpointFolder> checkpoints = list_checkpoints(options.folder);
  bool good = true;
  for (const CheckpointFolder& checkpoint : checkpoints) good = verify_folder(checkpoint.path) && good;
  if (checkpoints.empty()) good = verify_folder(options.folder);
  return good ? 0 : 1;
}

}  // namespace lathe
