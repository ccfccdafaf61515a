#include "lathe/commands.h"
#include "lathe/run_config.h"
#include "lathe/runtime.h"
#include "train/trainer.h"

namespace lathe {

int run_train(const TrainOptions& options) {
  RunConfig config = load_run_config(options.config, options.set);
  config.resume = options.resume;
  const Runtime runtime = make_runtime(choose_device(config.training.device, config.training.dtype, "training.device"));
  train(config, runtime);
  return 0;
}

}  // namespace lathe
