#include "lathe/run_config_keys.h"

#include <limits>
#include <utility>
#include <vector>

namespace lathe {
namespace {

using Range = Number::Range;

template <typename Section, typename Field, typename Rule>
RunConfigKey key(std::string_view name, Section RunConfig::*section, Field Section::*field, Rule rule) {
  return {name, false,
          [=](RunConfig& config, const Json& value, const PathRule& paths) {
            return rule.read(value, paths, config.*section.*field);
          },
          [=](const RunConfig& config) { return rule.write(config.*section.*field); }};
}

// A key that changes the model or the order of samples.
template <typename Section, typename Field, typename Rule>
RunConfigKey fixed_key(std::string_view name, Section RunConfig::*section, Field Section::*field, Rule rule) {
  RunConfigKey row = key(name, section, field, std::move(rule));
  row.fixed_on_resume = true;
  return row;
}

std::vector<RunConfigKey> model_and_data_keys() {
  using Model = RunConfig::Model;
  using Data = RunConfig::Data;
  return {
      fixed_key("model.config", &RunConfig::model, &Model::config, Path{}),
      key("model.init_std", &RunConfig::model, &Model::init_std, Number{Range::positive}),
      fixed_key("model.softmax_scale", &RunConfig::model, &Model::softmax_scale, Number{Range::not_negative}),
      fixed_key("model.norm_topk_prob", &RunConfig::model, &Model::norm_topk_prob,
                Choice{{"refuse", "ignore", "normalize"}}),
      fixed_key("data.train", &RunConfig::data, &Data::train, DataSets{.min_count = 1}),
      key("data.validation", &RunConfig::data, &Data::validation, DataSets{}),
      key("data.tokenizer", &RunConfig::data, &Data::tokenizer, Tokenizer{}),
  };
}

std::vector<RunConfigKey> training_keys() {
  using Training = RunConfig::Training;
  const auto training = &RunConfig::training;
  constexpr std::int64_t kMaxSeed = std::numeric_limits<std::int64_t>::max();  // TOML has no larger number
  return {
      key("training.device", training, &Training::device, Choice{{"auto", "cpu", "cuda"}}),
      key("training.dtype", training, &Training::dtype, Choice{{"auto", "fp32", "bf16"}}),
      fixed_key("training.sequence_length", training, &Training::sequence_length, Integer{1}),
      key("training.micro_batch_size", training, &Training::micro_batch_size, Integer{1}),
      key("training.global_batch_size", training, &Training::global_batch_size, Integer{1}),
      key("training.max_steps", training, &Training::max_steps, Integer{1}),
      fixed_key("training.seed", training, &Training::seed, Integer{0, kMaxSeed}),
      key("training.gradient_clip", training, &Training::gradient_clip, Number{Range::not_negative}),
      key("training.moe_load_balance_type", training, &Training::moe_load_balance_type,
          Choice{{"micro-batch", "sequence", "global-batch"}}),
      key("training.moe_load_balance_coef", training, &Training::moe_load_balance_coef, Number{Range::not_negative}),
      key("training.force_balanced_router", training, &Training::force_balanced_router, Boolean{}),
      key("training.recompute", training, &Training::recompute, EmptyList{{"norm", "swiglu", "attention", "layer"}}),
      key("training.reset_attention_mask", training, &Training::reset_attention_mask, Boolean{}),
      key("training.validation_interval", training, &Training::validation_interval, Integer{0}),
      key("training.validation_samples", training, &Training::validation_samples, Integer{1}),
  };
}

std::vector<RunConfigKey> optimizer_and_scheduler_keys() {
  using Optimizer = RunConfig::Optimizer;
  using Scheduler = RunConfig::Scheduler;
  const auto optimizer = &RunConfig::optimizer;
  const auto scheduler = &RunConfig::scheduler;
  return {
      key("optimizer.type", optimizer, &Optimizer::type, Choice{{"adamw"}}),
      key("optimizer.beta1", optimizer, &Optimizer::beta1, Number{Range::decay_rate}),
      key("optimizer.beta2", optimizer, &Optimizer::beta2, Number{Range::decay_rate}),
      key("optimizer.eps", optimizer, &Optimizer::eps, Number{Range::positive}),
      key("optimizer.weight_decay", optimizer, &Optimizer::weight_decay, Number{Range::not_negative}),
      key("optimizer.state_dtype", optimizer, &Optimizer::state_dtype,
          Choice{{"fp32"}, {{"bf16", "moments are kept in fp32"}}}),
      key("optimizer.offload", optimizer, &Optimizer::offload, Boolean{"there is no device memory to offload from"}),
      key("scheduler.type", scheduler, &Scheduler::type, Choice{{"constant", "cosine", "linear", "wsd"}}),
      key("scheduler.max_lr", scheduler, &Scheduler::max_lr, Number{Range::not_negative}),
      key("scheduler.min_lr", scheduler, &Scheduler::min_lr, Number{Range::not_negative}),
      key("scheduler.warmup_steps", scheduler, &Scheduler::warmup_steps, Integer{0}),
      key("scheduler.decay_steps", scheduler, &Scheduler::decay_steps, Integer{0}),
  };
}

std::vector<RunConfigKey> run_keys() {
  using Parallel = RunConfig::Parallel;
  using Checkpoint = RunConfig::Checkpoint;
  const auto parallel = &RunConfig::parallel;
  const auto checkpoint = &RunConfig::checkpoint;
  return {
      key("parallel.pipeline_parallel_size", parallel, &Parallel::pipeline_parallel_size, ParallelSize{}),
      key("parallel.context_parallel_size", parallel, &Parallel::context_parallel_size, ParallelSize{}),
      key("parallel.expert_parallel_size", parallel, &Parallel::expert_parallel_size, ParallelSize{}),
      key("checkpoint.directory", checkpoint, &Checkpoint::directory, Path{}),
      key("checkpoint.interval", checkpoint, &Checkpoint::interval, Integer{0}),
      key("checkpoint.keep", checkpoint, &Checkpoint::keep, Integer{1}),
      key("logging.tensorboard", &RunConfig::logging, &RunConfig::Logging::tensorboard, Boolean{}),
  };
}

std::vector<RunConfigKey> all_keys() {
  std::vector<RunConfigKey> keys;
  for (auto group : {model_and_data_keys, training_keys, optimizer_and_scheduler_keys, run_keys})
    for (RunConfigKey& row : group()) keys.push_back(std::move(row));
  return keys;
}

}  // namespace

std::span<const RunConfigKey> run_config_keys() {
  static const std::vector<RunConfigKey> keys = all_keys();
  return keys;
}

}  // namespace lathe
