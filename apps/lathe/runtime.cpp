#include "lathe/runtime.h"

#include "backends/register.h"
#include "checkpoint/checkpoint.h"
#include "core/log.h"
#include "train/model_io.h"

namespace lathe {

namespace {

DType dtype_of_device(DeviceKind kind, const std::string& asked) {
  require(asked == "auto" || asked == "fp32" || asked == "bf16",
          "training.dtype is \"{}\", allowed are auto, fp32, bf16", asked);
  require(asked != "bf16" || kind == DeviceKind::cuda,
          "training.dtype is \"bf16\": the CPU trains in fp32, allowed are auto and fp32");
  return kind == DeviceKind::cuda && asked != "fp32" ? DType::bf16 : DType::f32;
}

}  // namespace

DeviceChoice choose_device(const std::string& device, const std::string& dtype, std::string_view setting) {
  require(device == "auto" || device == "cpu" || device == "cuda", "{} is \"{}\", allowed are auto, cpu, cuda", setting,
          device);
  const std::string no_gpu = device == "cpu" ? std::string() : device_unavailable(DeviceKind::cuda);
  require(device != "cuda" || no_gpu.empty(), "{} is \"cuda\": {}", setting, no_gpu);
  const bool gpu = device != "cpu" && no_gpu.empty();
  DeviceChoice choice;
  choice.kind = gpu ? DeviceKind::cuda : DeviceKind::cpu;
  choice.dtype = dtype_of_device(choice.kind, dtype);
  choice.reason = device != "auto" ? "as asked for" : gpu ? "auto: this machine has a GPU" : "auto: " + no_gpu;
  return choice;
}

Runtime make_runtime(const DeviceChoice& choice) {
  return {.device = make_device(choice.kind),
          .table = &op_table(choice.kind),
          .reason = choice.reason,
          .dtype = choice.dtype};
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
  LoadedModel model{.runtime = make_runtime(choose_device(options.device, "auto", "--device")),
                    .folder = opened.folder,
                    .session = nullptr};
  const TensorFolder tensors(opened.folder);
  require_model_tensors(tensors, opened.config, ParameterLayout(opened.config));
  report_skipped(opened);
  model.session = std::make_unique<Session>(
      model.runtime, opened.config,
      Session::Options{.gradients = options.gradients, .max_positions = options.max_positions});
  read_weights(tensors, *model.session);
  return model;
}

}  // namespace lathe
