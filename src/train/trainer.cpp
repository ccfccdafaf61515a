#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>

#include "comm/communicator.h"
#include "core/log.h"
#include "device/trace.h"
#include "train/evaluate.h"
#include "train/host_copy.h"
#include "train/lr_schedule.h"
#include "train/memory_plan.h"
#include "train/metrics.h"
#include "train/model_io.h"
#include "train/optimizer.h"
#include "train/run_inputs.h"
#include "train/sample_batch.h"

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

BalanceLoss::Scope balance_scope(const std::string& type) {
  if (type == "micro-batch") return BalanceLoss::Scope::micro_batch;
  if (type == "sequence") return BalanceLoss::Scope::sequence;
  check(type == "global-batch", "training.moe_load_balance_type is \"{}\"", type);
  return BalanceLoss::Scope::global_batch;
}

class Trainer {
 public:
  Trainer(const RunConfig& config, const Runtime& runtime, RunInputs inputs);

  void run();

 private:
  void log_start() const;
  void fill_weights();
  void run_step();
  // The tokens of the next step on the device, micro-batch by micro-batch.
  std::vector<MicroBatch> upload_samples();
  // The optimizer's update, unless the gradient is not finite.
  void update(double norm, double lr);
  void validate();
  void save();

  const RunConfig& config_;
  std::string reason_;  // why this device
  RunInputs inputs_;
  Session session_;
  Optimizer optimizer_;
  std::vector<MicroBatchBuffer> buffers_;  // one for each micro-batch of a step
  std::unique_ptr<Communicator> communicator_;
  Buffer sums_memory_;  // [3] f64, read once a step: cross-entropy, balance loss, squares of the gradients
  TensorView sums_;
  Buffer counts_memory_;  // [layers, E + 1] i64: BalanceLoss::accumulated
  BalanceLoss balance_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::int64_t step_ = 0;  // done
  std::int64_t consumed_samples_ = 0;
  std::int64_t saved_step_ = -1;
};

Trainer::Trainer(const RunConfig& config, const Runtime& runtime, RunInputs inputs)
    : config_(config),
      reason_(runtime.reason.empty() ? "" : fmt::format(" ({})", runtime.reason)),
      inputs_(std::move(inputs)),
      session_(runtime, inputs_.model,
               {.gradients = true, .masters = true, .max_positions = config.training.sequence_length}),
      optimizer_(config.optimizer, session_.layout(), session_.ops()),
      communicator_(make_self_communicator()) {
  Device& device = session_.device();
  sums_memory_ = Buffer(device, 3 * sizeof(double), "losses");
  sums_ = TensorView::contiguous(sums_memory_.data(), DType::f64, {3}, device.kind());

  const RunConfig::Training& training = config_.training;
  for (std::int64_t sample = 0; sample < training.global_batch_size; sample += training.micro_batch_size)
    buffers_.emplace_back(session_, training.micro_batch_size * training.sequence_length);
  const ModelConfig& model = session_.config();
  const std::int64_t counts = model.num_layers * (model.num_routed_experts + 1);
  counts_memory_ = Buffer(device, static_cast<std::size_t>(counts) * sizeof(std::int64_t), "expert counts");
  balance_.scope = balance_scope(training.moe_load_balance_type);
  balance_.coef_over_tokens =
      training.moe_load_balance_coef / static_cast<double>(training.global_batch_size * training.sequence_length);
  balance_.accumulated = TensorView::contiguous(counts_memory_.data(), DType::i64,
                                                {model.num_layers, model.num_routed_experts + 1}, device.kind());
  balance_.loss = sums_.slice(0, 1, 1);
  balance_.force_balanced = training.force_balanced_router;

  fill_weights();
  if (inputs_.resumed) {
    optimizer_.load(inputs_.checkpoint, inputs_.resumed->updates);
    step_ = saved_step_ = inputs_.resumed->step;
    consumed_samples_ = inputs_.resumed->consumed_samples;
  }
  inputs_.weights.reset();  // unmaps the files
}

void Trainer::fill_weights() {
  if (inputs_.resumed) {
    const SavedMasters masters(inputs_.checkpoint);
    if (masters.any())
      return session_.fill_weights(
          [&](const std::string& name, const TensorView& host) { masters.read_into(name, host); });
  }
  if (inputs_.weights) return read_weights(*inputs_.weights, session_);
  session_.fill_weights([&](const std::string& name, const TensorView& host) {
    initialize_parameter(session_.config(), {name, host}, config_.model.init_std, config_.training.seed);
  });
}

void Trainer::log_start() const {
  const RunConfig::Training& training = config_.training;
  const ParameterLayout& layout = session_.layout();
  const std::int64_t required =
      consumed_samples_ + std::max<std::int64_t>(0, training.max_steps - step_) * training.global_batch_size;
  const std::int64_t available = inputs_.samples->samples_per_epoch();
  log_info("lathe {} | {}{} | {}", LATHE_VERSION, session_.device().describe(), reason_,
           session_.weights().dtype == DType::bf16 ? "bf16 with fp32 masters" : "fp32");
  log_info("model deepseek_v2 | {} layers | parameters {} total, {} active a token", session_.config().num_layers,
           with_commas(layout.total_parameters()), with_commas(layout.active_parameters()));
  log_info("mesh 1pp-1dp-1cp-1ep | micro-batch {} x {} tokens | global batch {} sequences", training.micro_batch_size,
           training.sequence_length, training.global_batch_size);
  log_info("samples available {}, required {}: {:.2f} epochs", with_commas(available), with_commas(required),
           static_cast<double>(required) / static_cast<double>(available));
  log_info("planned memory: {}",
           plan_memory(session_.config(), layout,
                       training_shape(training, session_.device().kind(), session_.weights().dtype))
               .describe());
  if (training.force_balanced_router) log_info("the router is forced to balance: a benchmark, not a training run");
}

void Trainer::run() {
  const fs::path& directory = config_.checkpoint.directory;
  fs::create_directories(directory);
  if (!inputs_.lock) inputs_.lock = std::make_unique<RunLock>(directory);
  remove_temporary_folders(directory);
  catch_stop_signals();

  for (const std::string& warning : inputs_.warnings) log_warning("{}", warning);
  log_start();
  for (const SettingChange& change : inputs_.changed)
    log_info("{} is now {}, it was {}", change.key, change.current, change.saved);
  if (config_.resume && !inputs_.resumed) log_info("{} holds no checkpoint: starting at step 1", directory.string());
  if (inputs_.resumed) log_info("going on from {}", inputs_.checkpoint.string());
  if (step_ >= config_.training.max_steps) {
    log_info("step {} of {} is done already: nothing to do", step_, config_.training.max_steps);
    return;
  }
  metrics_ = std::make_unique<MetricsWriter>(directory, step_, config_.logging.tensorboard);

  const std::int64_t validation_interval = config_.training.validation_interval;
  const std::int64_t interval = config_.checkpoint.interval;
  const std::int64_t first_step = step_;
  while (step_ < config_.training.max_steps) {
    run_step();
    if (step_ == first_step + 1) log_info("memory in use: {}", session_.describe_memory());
    const bool last = step_ == config_.training.max_steps;
    if (validation_interval > 0 && (step_ % validation_interval == 0 || last)) validate();
    if (last || stop_requested != 0 || (interval > 0 && step_ % interval == 0)) save();
    if (stop_requested != 0 && !last) {
      log_info("stopped by a signal after step {}; go on with --resume", step_);
      return;
    }
  }
}

void Trainer::run_step() {
  const TraceRange range("step");
  const auto begin = std::chrono::steady_clock::now();
  const RunConfig::Training& training = config_.training;
  Device& device = session_.device();
  const Stream stream = session_.ops().stream;
  device.fill_zero(session_.gradients(), stream);
  device.fill_zero(sums_, stream);
  device.fill_zero(balance_.accumulated, stream);
  // Every target counts, so N, the unmasked targets of the global batch, is known beforehand.
  const double scale = 1.0 / static_cast<double>(training.global_batch_size * training.sequence_length);
  for (const MicroBatch& batch : upload_samples())
    session_.model().forward_backward(batch, scale, sums_.slice(0, 0, 1), balance_);
  communicator_->all_reduce_sum(session_.gradients(), stream);
  communicator_->all_reduce_sum(sums_.slice(0, 0, 2), stream);
  optimizer_.sum_of_squares(session_.gradients(), sums_.slice(0, 2, 1));
  // The one time that a step waits for the device. The update that follows runs on while the line is printed and the
  // next samples are read, so on a GPU its time is the next step's.
  const std::vector<double> sums = read_numbers(device, stream, sums_);

  ++step_;
  consumed_samples_ += training.global_batch_size;
  StepMetrics metrics;
  metrics.learning_rate = learning_rate(config_.scheduler, training.max_steps, step_);
  metrics.gradient_norm = std::sqrt(sums[2]);
  update(metrics.gradient_norm, metrics.learning_rate);

  metrics.step = step_;
  metrics.max_steps = training.max_steps;
  metrics.step_time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  metrics.cross_entropy_loss = sums[0];
  const ModelConfig& model = session_.config();
  const std::int64_t moe_layers = std::max<std::int64_t>(1, model.num_layers - model.first_k_dense_replace);
  if (training.moe_load_balance_coef != 0) metrics.load_balance_loss = sums[1] / static_cast<double>(moe_layers);
  metrics.tokens_per_second =
      static_cast<double>(training.global_batch_size * training.sequence_length) / metrics.step_time;
  metrics.peak_memory_bytes = device.peak_memory_bytes();
  metrics.gpu = device.kind() == DeviceKind::cuda;
  metrics.consumed_samples = consumed_samples_;
  metrics.skipped = step_ - optimizer_.updates();
  metrics_->write(metrics);
}

// All before the first forward: copies from the host's memory then find the device idle, and none waits for kernels.
std::vector<MicroBatch> Trainer::upload_samples() {
  const TraceRange range("samples");
  const RunConfig::Training& training = config_.training;
  std::vector<MicroBatch> batches;
  std::int64_t next = consumed_samples_;
  for (MicroBatchBuffer& buffer : buffers_) {
    SampleBatch samples(training.sequence_length, training.reset_attention_mask);
    for (std::int64_t i = 0; i < training.micro_batch_size; ++i) samples.add(*inputs_.samples, next++);
    batches.push_back(samples.upload(buffer));
  }
  return batches;
}

void Trainer::update(double norm, double lr) {
  if (!std::isfinite(norm)) {
    log_warning("step {} is skipped: the gradient of {} is not finite", step_,
                optimizer_.first_non_finite(session_.gradients()));
    return;
  }
  const double clip = config_.training.gradient_clip;
  const double grad_scale = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
  const TraceRange range("optimizer");
  optimizer_.step(session_.masters(), session_.weights(), session_.gradients(), grad_scale, lr);
}

void Trainer::validate() {
  const RunConfig::Training& training = config_.training;
  const Evaluation result = evaluate(session_, buffers_.front(), *inputs_.validation,
                                     {.sequence_length = training.sequence_length,
                                      .samples = training.validation_samples,
                                      .micro_batch_size = training.micro_batch_size,
                                      .reset_attention_mask = training.reset_attention_mask});
  metrics_->write(ValidationMetrics{.step = step_, .loss = result.loss, .tokens = result.tokens});
}

void Trainer::save() {
  if (saved_step_ == step_) return;
  const fs::path path = write_checkpoint(config_.checkpoint.directory, step_, [&](const fs::path& folder) {
    write_model_folder(folder, session_.config(), session_.layout(), session_);
    if (config_.data.tokenizer != "bytes") copy_tokenizer_files(config_.data.tokenizer, folder);
    optimizer_.save(folder, session_.weights().dtype == DType::f32 ? TensorView{} : session_.masters());
    write_run_state(folder, {.step = step_,
                             .consumed_samples = consumed_samples_,
                             .updates = optimizer_.updates(),
                             .seed = config_.training.seed,
                             .toml = config_.toml,
                             .norm_topk_prob = config_.model.norm_topk_prob,
                             .softmax_scale = config_.model.softmax_scale});
  });
  prune_checkpoints(config_.checkpoint.directory, config_.checkpoint.keep, step_);
  saved_step_ = step_;
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
