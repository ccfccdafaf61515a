#include "train/run_inputs.h"

#include "core/file.h"
#include "data/tokenizer.h"
#include "train/model_io.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

// A folder that is no model itself may be a run's: its newest checkpoint is meant.
fs::path model_source(const RunConfig& config) {
  const fs::path& source = config.model.config;
  return fs::is_directory(source) ? resolve_model_folder(source, {}).path : source;
}

ModelConfig read_model(const RunConfig& config, const fs::path& source) {
  return read_model_config(
      source, {.norm_topk_prob = config.model.norm_topk_prob, .softmax_scale = config.model.softmax_scale});
}

void open_data(const RunConfig& config, RunInputs& inputs) {
  const RunConfig::Training& training = config.training;
  std::vector<WeightedCorpus> corpora;
  for (const WeightedData& data : config.data.train) corpora.push_back({data.path, data.weight});
  inputs.samples = std::make_unique<Sampler>(corpora, training.sequence_length, training.seed);
  inputs.samples->require_ids_below(inputs.model.vocab_size);
  inputs.samples->require_global_batch(training.global_batch_size);
  if (!config.data.validation.empty()) {
    std::vector<fs::path> prefixes;
    for (const WeightedData& data : config.data.validation) prefixes.push_back(data.path);
    inputs.validation = std::make_unique<ValidationSet>(prefixes, training.sequence_length);
    inputs.validation->require_ids_below(inputs.model.vocab_size);
  }
  require(training.validation_interval == 0 || inputs.validation != nullptr,
          "training.validation_interval is {}, but data.validation is empty", training.validation_interval);
  const std::int64_t needed = load_tokenizer(config.data.tokenizer)->vocab_size();
  require(inputs.model.vocab_size >= needed, "{}: vocab_size is {}, the tokenizer {} needs {}",
          config.model.config.string(), inputs.model.vocab_size, config.data.tokenizer, needed);
}

RunInputs open_model_and_data(const RunConfig& config, const fs::path& source) {
  RunInputs inputs;
  inputs.model = read_model(config, source);
  inputs.layout = std::make_unique<ParameterLayout>(inputs.model);
  open_data(config, inputs);
  return inputs;
}

// The weights to start from, if the model is given as a folder.
void open_weights(const RunConfig& config, const fs::path& source, RunInputs& inputs) {
  if (!fs::is_directory(config.model.config)) return;
  inputs.weights = std::make_unique<TensorFolder>(source);
  require_model_tensors(*inputs.weights, inputs.model, *inputs.layout);
}

// Throws unless the checkpoint holds the model that the run is about.
void require_same_model(const fs::path& checkpoint, const RunInputs& inputs) {
  const Json ours = model_config_json(inputs.model);
  const fs::path path = checkpoint / "config.json";
  const Json theirs = Json::parse(read_text_file(path, std::size_t{16} << 20), path.string());
  for (const auto& [key, value] : ours.object()) {
    const Json* saved = theirs.find(key);
    if (key == "torch_dtype" || (saved != nullptr && *saved == value)) continue;
    refuse("{}: {} is {}, the run's model has {}", path.string(), key, saved == nullptr ? "missing" : saved->dump(),
           value.dump());
  }
}

void open_resumed(const RunConfig& config, RunInputs& inputs) {
  const auto found = newest_good_checkpoint(config.checkpoint.directory, [&](const auto& name, const auto& reason) {
    inputs.warnings.push_back(fmt::format("{} is skipped: {}", name, reason));
  });
  if (!found) return;
  inputs.checkpoint = found->path;
  inputs.resumed = read_run_state(found->path);
  inputs.changed = require_resumable(inputs.resumed->toml, config);
  require_same_model(found->path, inputs);
  inputs.weights = std::make_unique<TensorFolder>(found->path);
  require_model_tensors(*inputs.weights, inputs.model, *inputs.layout);
}

}  // namespace

ModelConfig read_run_model(const RunConfig& config) { return read_model(config, model_source(config)); }

RunInputs open_step_inputs(const RunConfig& config) {
  const fs::path source = model_source(config);
  RunInputs inputs = open_model_and_data(config, source);
  open_weights(config, source, inputs);
  return inputs;
}

RunInputs open_run_inputs(const RunConfig& config) {
  const fs::path source = model_source(config);
  RunInputs inputs = open_model_and_data(config, source);
  const fs::path& directory = config.checkpoint.directory;
  require_writable_directory(directory);
  // Without a lock file nobody holds it, and none is left behind if the run is refused.
  if (fs::exists(directory / ".lock")) inputs.lock = std::make_unique<RunLock>(directory);
  if (config.resume) open_resumed(config, inputs);
  require(config.resume || list_checkpoints(directory).empty(),
          "checkpoint.directory {} holds checkpoints: go on with --resume, or name another folder", directory.string());
  if (!inputs.resumed) open_weights(config, source, inputs);
  return inputs;
}

}  // namespace lathe
