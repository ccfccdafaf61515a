#include "core/log.h"
#include "lathe/commands.h"
#include "lathe/runtime.h"
#include "train/model_io.h"

namespace lathe {

int run_export(const ExportOptions& options) {
  const OpenedModel opened = open_model(options.checkpoint);
  copy_model_folder(opened.folder, options.out, false);
  report_skipped(opened);
  log_info("exported to {}", options.out.string());
  return 0;
}

int run_import(const ImportOptions& options) {
  const OpenedModel opened = open_model(options.from);
  copy_model_folder(opened.folder, options.out, true);
  report_skipped(opened);
  log_info("imported to {}", options.out.string());
  return 0;
}

}  // namespace lathe
