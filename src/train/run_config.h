// A run's settings, as in run.toml; `apps` parses them once (apps/lathe/run_config_keys.cpp has the table).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

struct WeightedData {
  std::filesystem::path path;  // prefix of .bin and .idx
  double weight = 1.0;
};

struct RunConfig {
  struct Model {
    std::filesystem::path config;  // config.json, or a folder to start from its weights
    double init_std = 0.02;
    double softmax_scale = 0;               // 0: from the model's config
    std::string norm_topk_prob = "refuse";  // refuse | ignore | normalize
  } model;

  struct Data {
    std::vector<WeightedData> train;
    std::vector<WeightedData> validation;
    std::string tokenizer = "bytes";  // or a folder with tokenizer.json
  } data;

  struct Training {
    std::string device = "auto";  // auto | cpu | cuda
    std::string dtype = "auto";   // auto | fp32 | bf16
    std::int64_t sequence_length = 2048;
    std::int64_t micro_batch_size = 1;
    std::int64_t global_batch_size = 1024;  // sequences a step over the whole mesh
    std::int64_t max_steps = 25;
    std::uint64_t seed = 1234;
    double gradient_clip = 1.0;                          // 0: none
    std::string moe_load_balance_type = "global-batch";  // micro-batch | sequence | global-batch
    double moe_load_balance_coef = 0.0;
    bool force_balanced_router = false;  // benchmarks only: choices are dealt to the experts in turn
    std::vector<std::string> recompute;  // nothing yet
    bool reset_attention_mask = false;
    std::int64_t validation_interval = 0;  // steps; 0: never
    std::int64_t validation_samples = 64;
  } training;

  struct Optimizer {
    std::string type = "adamw";
    double beta1 = 0.9;
    double beta2 = 0.95;
    double eps = 1e-8;
    double weight_decay = 0.1;
    std::string state_dtype = "fp32";
    bool offload = false;
  } optimizer;

  struct Scheduler {
    std::string type = "cosine";  // constant | cosine | linear | wsd
    double max_lr = 3e-4;
    double min_lr = 3e-5;
    std::int64_t warmup_steps = 0;
    std::int64_t decay_steps = 0;  // wsd: length of the final decay
  } scheduler;

  struct Parallel {
    std::int64_t pipeline_parallel_size = 1;
    std::int64_t context_parallel_size = 1;
    std::int64_t expert_parallel_size = 1;
  } parallel;

  struct Checkpoint {
    std::filesystem::path directory = "runs/quickstart";
    std::int64_t interval = 0;  // steps; 0: at the end only
    std::int64_t keep = 3;
  } checkpoint;

  struct Logging {
    bool tensorboard = true;
  } logging;

  // One key of run.toml with its value in effect, in TOML.
  struct Setting {
    std::string key;  // "training.seed"
    std::string value;
    bool fixed_on_resume = false;  // changes the model or the order of samples
  };

  bool resume = false;            // from --resume, no key of the file
  std::string toml;               // every key with its value in effect, for the log and the checkpoint
  std::vector<Setting> settings;  // the same, key by key
};

// The value of a key in RunConfig::toml, in TOML.
std::optional<std::string> saved_setting(std::string_view saved_toml, std::string_view key);

struct SettingChange {
  std::string key;
  std::string saved;    // "unset" if the saved run did not have the key
  std::string current;  // "unset" if this run does not have it
  bool refused = false;
};

// The keys whose values differ between a saved run (its RunConfig::toml) and this one, in the order of `current`.
std::vector<SettingChange> changed_settings(std::string_view saved_toml,
                                            const std::vector<RunConfig::Setting>& current);

// The changes that a resumed run may make, for a line each; throws InputError naming the keys that it may not change.
std::vector<SettingChange> require_resumable(std::string_view saved_toml, const RunConfig& config);

}  // namespace lathe
