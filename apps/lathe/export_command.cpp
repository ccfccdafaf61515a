#include "core/log.h"
#include "lathe/commands.h"
#include "lathe/runtime.h"
#include "train/model_io.h"

namespace lathe {

int run_export(const ExportOptions& options) {
  copy_model_folder(open_model(options.checkpoint).folder, options.out, false);
  log_info("exported to {}", options.out.string());
  return 0;
}

int run_import(const ImportOptions& options) {
  copy_model_folder(open_model(options.from).folder, options.out, true);
  log_info("imported to {}", options.out.string());
  return 0;
}

}  // namespace lathe
