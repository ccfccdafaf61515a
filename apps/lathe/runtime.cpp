#include "lathe/runtime.h"

#include "backends/register.h"
#include "checkpoint/checkpoint.h"
#include "core/log.h"
#include "device/cpu_device.h"
#include "train/model_io.h"

namespace lathe {

Runtime make_runtime(const std::string& device) {
  require(device == "auto" || device == "cpu" || device == "cuda", "device is \"{}\", allowed are auto, cpu, cuda",
          device);
  require(device != "cuda", "device is \"cuda\": this build has no CUDA backend yet, allowed are auto and cpu");
  Runtime runtime;
  runtime.device = make_cpu_device();
  runtime.table = &op_table(DeviceKind::cpu);
  runtime.reason = device == "auto" ? "auto: this build has no CUDA backend" : "as asked for";
  return runtime;
}

OpenedModel open_model(const std::filesystem::path& checkpoint) {
  OpenedModel opened;
  const auto on_skip = [&](const std::string& name, const std::string& reason) {
    opened.skipped.push_back(fmt::format("{} is skipped: {}", name, reason));
  };
  opened.folder = resolve_model_folder(checkpoint, on_skip).path;
  opened.config = read_folder_config(opened.folder);
  return opened;
}

void report_skipped(const OpenedModel& opened) {
  for (const std::string& line : opened.skipped) log_warning("{}", line);
}

void require_tokens_in_vocabulary(std::span<const std::int32_t> tokens, const ModelConfig& config) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    require(tokens[i] >= 0 && tokens[i] < config.vocab_size, "token {} is {}, allowed are 0 to {}", i, tokens[i],
            config.vocab_size - 1);
}

LoadedModel load_model(const OpenedModel& opened, const LoadOptions& options) {
  LoadedModel model{.runtime = make_runtime(options.device), .folder = opened.folder, .session = nullptr};
  const TensorFolder tensors(opened.folder);
  require_model_tensors(tensors, opened.config, ParameterLayout(opened.config));
  report_skipped(opened);
  model.session = std::make_unique<Session>(
      model.runtime, opened.config,
      Session::Options{.dtype = DType::f32, .gradients = options.gradients, .max_positions = options.max_positions});
  read_weights(tensors, *model.session);
  return model;
}

}  // namespace lathe
