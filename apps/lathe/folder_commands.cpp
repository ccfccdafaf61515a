// `lathe export` and `lathe import`
#include "checkpoint/checkpoint.h"
#include "core/log.h"
#include "lathe/commands.h"
#include "train/model_io.h"

namespace lathe {
namespace {

void copy_model(const std::filesystem::path& from, const std::filesystem::path& out, bool manifest) {
  std::vector<std::string> warnings;
  const ModelFolder folder = resolve_model_folder(from, [&](const std::string& name, const std::string& reason) {
    warnings.push_back(fmt::format("{} is skipped: {}", (from / name).string(), reason));
  });
  copy_model_folder(folder.path, out, manifest);
  for (const std::string& warning : warnings) log_warning("{}", warning);
  log_info("{} written from {}", out.string(), folder.path.string());
}

}  // namespace

int run_export(const ExportOptions& options) {
  copy_model(options.checkpoint, options.out, false);
  return 0;
}

int run_import(const ImportOptions& options) {
  copy_model(options.from, options.out, true);
  return 0;
}

}  // namespace lathe
