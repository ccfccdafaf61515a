// A model in training, a step a call: what `lathe train` repeats and saves, and `lathe bench step` times.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/run_config.h"
#include "train/run_inputs.h"
#include "train/session.h"

namespace lathe {

class TrainingSteps {
 public:
  // Allocates all that a step needs and fills it: where the inputs go on, else with their weights or at random. The
  // arguments outlive the object, but for the inputs' weights, which are read here.
  TrainingSteps(const RunConfig& config, const Runtime& runtime, const RunInputs& inputs);

  // Logs what is trained, where, and the memory planned.
  void log_start() const;
  // Trains on the next samples; without an update, and with a warning, if the gradient is not finite.
  StepMetrics run_step();
  ValidationMetrics validate();

  // Steps done so far, and the samples they trained on.
  std::int64_t step() const { return step_; }
  std::int64_t consumed_samples() const { return consumed_samples_; }
  Session& session() { return session_; }
  const Optimizer& optimizer() const { return optimizer_; }

 private:
  void fill_weights();
  // The tokens of the next step on the device, micro-batch by micro-batch.
  std::vector<MicroBatch> upload_samples();
  // The optimizer's update, unless the gradient is not finite.
  void update(double norm, double lr);

  const RunConfig& config_;
  const Runtime& runtime_;
  const RunInputs& inputs_;
  Session session_;
  Optimizer optimizer_;
  std::vector<MicroBatchBuffer> buffers_;  // one for each micro-batch of a step
  std::unique_ptr<Communicator> communicator_;
  Buffer sums_memory_;  // [3] f64, read once a step: cross-entropy, balance loss, squares of the gradients
  TensorView sums_;
  Buffer counts_memory_;  // [layers, E + 1] i64: BalanceLoss::accumulated
  BalanceLoss balance_;
  std::int64_t step_ = 0;
  std::int64_t consumed_samples_ = 0;
};

}  // namespace lathe
