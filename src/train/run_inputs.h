// Everything a run reads, opened and checked before anything is written.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_folder.h"
#include "data/sampler.h"
#include "model/config.h"
#include "model/parameters.h"
#include "train/run_config.h"
#include "train/run_lock.h"
#include "train/run_state.h"

namespace lathe {

struct RunInputs {
  ModelConfig model;
  std::unique_ptr<ParameterLayout> layout;
  std::unique_ptr<Sampler> samples;
  std::unique_ptr<ValidationSet> validation;  // null: none
  std::unique_ptr<TensorFolder> weights;      // null: random
  std::optional<RunState> resumed;            // where the run goes on
  std::filesystem::path checkpoint;           // of that state
  std::vector<std::string> warnings;          // checkpoints passed over; to be printed once everything is checked
  std::vector<SettingChange> changed;         // since that state was saved
  std::unique_ptr<RunLock> lock;              // taken if the run's folder holds a lock file
};

// The model that a run is about: of model.config, a config.json or a folder.
ModelConfig read_run_model(const RunConfig& config);

// What training takes without a folder of its own: model, data, and the weights to start from.
RunInputs open_step_inputs(const RunConfig& config);

// The same for a run: also its folder, and where it goes on. Throws InputError for anything that the run could trip
// over later.
RunInputs open_run_inputs(const RunConfig& config);

}  // namespace lathe
