#include "lathe/model_folder.h"

#include <cstdlib>

#include "backends/register.h"
#include "core/log.h"
#include "device/cpu_device.h"
#include "train/model_io.h"
#include "train/run_config.h"
#include "train/run_state.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

// How the run that wrote a checkpoint read its config.
ModelConfigOptions options_of_run(std::string_view toml) {
  ModelConfigOptions options;
  if (const auto value = saved_setting(toml, "model.norm_topk_prob"); value && value->size() > 2)
    options.norm_topk_prob = value->substr(1, value->size() - 2);  // without quotes
  if (const auto value = saved_setting(toml, "model.softmax_scale"))
    options.softmax_scale = std::strtod(value->c_str(), nullptr);
  return options;
}

}  // namespace

OpenModel open_model(const fs::path& folder) {
  OpenModel model;
  model.folder = resolve_model_folder(folder, [&](const std::string& name, const std::string& reason) {
    model.warnings.push_back(fmt::format("{} is skipped: {}", (folder / name).string(), reason));
  });
  const fs::path& path = model.folder.path;
  ModelConfigOptions options;
  if (model.folder.kind == ModelFolderKind::checkpoint && fs::exists(path / "state.json")) {
    const RunState state = read_run_state(path);
    options = options_of_run(state.toml);
    if (const auto length = saved_setting(state.toml, "training.sequence_length"))
      model.trained_length = std::strtoll(length->c_str(), nullptr, 10);
  }
  model.config = read_model_config(path, options);
  model.tensors = std::make_unique<TensorFolder>(path);
  require_model_tensors(*model.tensors, model.config, ParameterLayout(model.config));
  return model;
}

Runtime make_runtime(const std::string& device) {
  require(device == "auto" || device == "cpu", "device \"{}\": this build has no CUDA backend", device);
  Runtime runtime;
  runtime.device = make_cpu_device();
  runtime.table = &op_table(DeviceKind::cpu);
  runtime.reason = device == "cpu" ? "as asked" : "this build has no CUDA backend";
  return runtime;
}

std::unique_ptr<Session> load_model(const OpenModel& model, const Runtime& runtime, const Session::Options& options) {
  for (const std::string& warning : model.warnings) log_warning("{}", warning);
  auto session = std::make_unique<Session>(runtime, model.config, options);
  read_weights(*model.tensors, *session);
  return session;
}

void require_tokens_below(std::span<const std::int32_t> tokens, std::int64_t vocab_size, std::string_view flag) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    require(tokens[i] >= 0 && tokens[i] < vocab_size, "{}: item {} is {}: the model's ids are 0 to {}", flag, i + 1,
            tokens[i], vocab_size - 1);
}

}  // namespace lathe
