#include "train/trainer.h"

#include <csignal>

#include "core/log.h"
#include "train/metrics.h"
#include "train/model_io.h"
#include "train/run_inputs.h"
#include "train/training_steps.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

// A signal handler can reach nothing but a global: set by SIGTERM and SIGINT, read between steps.
volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int) { stop_requested = 1; }

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

class Trainer {
 public:
  Trainer(const RunConfig& config, const Runtime& runtime, RunInputs inputs);

  void run();

 private:
  void save();

  const RunConfig& config_;
  RunInputs inputs_;
  TrainingSteps steps_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::int64_t saved_step_ = -1;
};

Trainer::Trainer(const RunConfig& config, const Runtime& runtime, RunInputs inputs)
    : config_(config), inputs_(std::move(inputs)), steps_(config, runtime, inputs_) {
  if (inputs_.resumed) saved_step_ = steps_.step();
  inputs_.weights.reset();  // unmaps the files
}

void Trainer::run() {
  const fs::path& directory = config_.checkpoint.directory;
  fs::create_directories(directory);
  if (!inputs_.lock) inputs_.lock = std::make_unique<RunLock>(directory);
  remove_temporary_folders(directory);
  catch_stop_signals();

  for (const std::string& warning : inputs_.warnings) log_warning("{}", warning);
  steps_.log_start();
  for (const SettingChange& change : inputs_.changed)
    log_info("{} is now {}, it was {}", change.key, change.current, change.saved);
  if (config_.resume && !inputs_.resumed) log_info("{} holds no checkpoint: starting at step 1", directory.string());
  if (inputs_.resumed) log_info("going on from {}", inputs_.checkpoint.string());
  if (steps_.step() >= config_.training.max_steps) {
    log_info("step {} of {} is done already: nothing to do", steps_.step(), config_.training.max_steps);
    return;
  }
  metrics_ = std::make_unique<MetricsWriter>(directory, steps_.step(), config_.logging.tensorboard);

  const std::int64_t validation_interval = config_.training.validation_interval;
  const std::int64_t interval = config_.checkpoint.interval;
  const std::int64_t first_step = steps_.step();
  while (steps_.step() < config_.training.max_steps) {
    metrics_->write(steps_.run_step());
    const std::int64_t step = steps_.step();
    if (step == first_step + 1) log_info("memory in use: {}", steps_.session().describe_memory());
    const bool last = step == config_.training.max_steps;
    if (validation_interval > 0 && (step % validation_interval == 0 || last)) metrics_->write(steps_.validate());
    if (last || stop_requested != 0 || (interval > 0 && step % interval == 0)) save();
    if (stop_requested != 0 && !last) {
      log_info("stopped by a signal after step {}; go on with --resume", step);
      return;
    }
  }
}

void Trainer::save() {
  const std::int64_t step = steps_.step();
  if (saved_step_ == step) return;
  Session& session = steps_.session();
  const Optimizer& optimizer = steps_.optimizer();
  const fs::path path = write_checkpoint(config_.checkpoint.directory, step, [&](const fs::path& folder) {
    write_model_folder(folder, session.config(), session.layout(), session);
    if (config_.data.tokenizer != "bytes") copy_tokenizer_files(config_.data.tokenizer, folder);
    optimizer.save(folder, session.weights().dtype == DType::f32 ? TensorView{} : session.masters());
    write_run_state(folder, {.step = step,
                             .consumed_samples = steps_.consumed_samples(),
                             .updates = optimizer.updates(),
                             .seed = config_.training.seed,
                             .toml = config_.toml,
                             .norm_topk_prob = config_.model.norm_topk_prob,
                             .softmax_scale = config_.model.softmax_scale});
  });
  prune_checkpoints(config_.checkpoint.directory, config_.checkpoint.keep, step);
  saved_step_ = step;
  log_info("checkpoint {}", path.string());
}

// Which setting would take less memory in a step.
std::string memory_advice(const RunConfig::Training& training) {
  if (training.micro_batch_size > 1)
    return fmt::format("a training.micro_batch_size below {} takes less", training.micro_batch_size);
  return fmt::format("a training.sequence_length below {} takes less", training.sequence_length);
}

}  // namespace

void train(const RunConfig& config, const Runtime& runtime) {
  RunInputs inputs = open_run_inputs(config);
  std::string advice = "the model and its optimizer do not fit; lathe plan shows what they take";
  try {
    Trainer trainer(config, runtime, std::move(inputs));
    advice = memory_advice(config.training);
    try {
      trainer.run();
    } catch (const DeviceError&) {
      log_warning("memory in use: {}", runtime.device->memory().describe());
      throw;
    }
  } catch (const OutOfMemoryError& error) {
    throw OutOfMemoryError(fmt::format("{}; {}", error.what(), advice));
  }
}

}  // namespace lathe
