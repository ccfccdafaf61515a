#include "core/error.h"
#include "core/log.h"
#include "lathe/commands.h"
#include "lathe/run_config.h"
#include "lathe/runtime.h"
#include "train/memory_plan.h"
#include "train/run_inputs.h"

namespace lathe {

int run_plan(const PlanOptions& options) {
  const RunConfig config = load_run_config(options.config, options.set);
  const ModelConfig model = read_run_model(config);
  const ParameterLayout layout(model);
  const RunConfig::Training& training = config.training;
  const DeviceChoice choice = choose_device(training.device, training.dtype, "training.device");
  const MemoryPlan plan = plan_memory(model, layout, training_shape(training, choice.kind, choice.dtype));
  fmt::print("memory of one rank on the {} ({})\n", choice.kind == DeviceKind::cuda ? "GPU" : "CPU", choice.reason);
  for (const MemoryPlan::Category& category : plan.categories)
    fmt::print("{:<12} {:>12}\n", category.name, format_bytes(static_cast<std::size_t>(category.bytes)));
  fmt::print("{:<12} {:>12}\n", "total", format_bytes(static_cast<std::size_t>(plan.total())));
  return 0;
}

}  // namespace lathe
