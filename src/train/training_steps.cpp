#include "train/training_steps.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/log.h"
#include "device/trace.h"
#include "train/evaluate.h"
#include "train/host_copy.h"
#include "train/lr_schedule.h"
#include "train/memory_plan.h"
#include "train/model_io.h"
#include "train/sample_batch.h"

namespace lathe {
namespace {

BalanceLoss::Scope balance_scope(const std::string& type) {
  if (type == "micro-batch") return BalanceLoss::Scope::micro_batch;
  if (type == "sequence") return BalanceLoss::Scope::sequence;
  check(type == "global-batch", "training.moe_load_balance_type is \"{}\"", type);
  return BalanceLoss::Scope::global_batch;
}

}  // namespace

TrainingSteps::TrainingSteps(const RunConfig& config, const Runtime& runtime, const RunInputs& inputs)
    : config_(config),
      runtime_(runtime),
      inputs_(inputs),
      session_(runtime, inputs.model,
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
  if (!inputs_.resumed) return;
  optimizer_.load(inputs_.checkpoint, inputs_.resumed->updates);
  step_ = inputs_.resumed->step;
  consumed_samples_ = inputs_.resumed->consumed_samples;
}

void TrainingSteps::fill_weights() {
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

void TrainingSteps::log_start() const {
  const RunConfig::Training& training = config_.training;
  const ParameterLayout& layout = session_.layout();
  const std::int64_t required =
      consumed_samples_ + std::max<std::int64_t>(0, training.max_steps - step_) * training.global_batch_size;
  const std::int64_t available = inputs_.samples->samples_per_epoch();
  log_info("lathe {} | {}{} | {}", LATHE_VERSION, session_.device().describe(),
           runtime_.reason.empty() ? "" : fmt::format(" ({})", runtime_.reason),
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

StepMetrics TrainingSteps::run_step() {
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
  return metrics;
}

// All before the first forward: copies from the host's memory then find the device idle, and none waits for kernels.
std::vector<MicroBatch> TrainingSteps::upload_samples() {
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

void TrainingSteps::update(double norm, double lr) {
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

ValidationMetrics TrainingSteps::validate() {
  const RunConfig::Training& training = config_.training;
  const Evaluation result = evaluate(session_, buffers_.front(), *inputs_.validation,
                                     {.sequence_length = training.sequence_length,
                                      .samples = training.validation_samples,
                                      .micro_batch_size = training.micro_batch_size,
                                      .reset_attention_mask = training.reset_attention_mask});
  return {.step = step_, .loss = result.loss, .tokens = result.tokens};
}

}  // namespace lathe
