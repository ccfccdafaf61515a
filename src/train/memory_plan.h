// How much memory a run takes, before it takes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/device.h"
#include "model/config.h"
#include "model/parameters.h"
#include "train/run_config.h"

namespace lathe {

struct MemoryPlan {
  // Named as the allocations are (Device::memory).
  struct Category {
    std::string name;
    std::int64_t bytes = 0;
  };
  std::vector<Category> categories;

  std::int64_t total() const;
  // "weights 5.2 MB, gradients 5.2 MB, ..., total 312.0 MB"
  std::string describe() const;
};

struct TrainingShape {
  DeviceKind device = DeviceKind::cpu;
  DType dtype = DType::f32;  // of weights and activations
  std::int64_t sequence_length = 0;
  std::int64_t micro_batch_size = 0;
  std::int64_t micro_batches = 0;  // of a step
};

TrainingShape training_shape(const RunConfig::Training& training, DeviceKind device, DType dtype);

// A training run on one rank, within a tenth of what it takes after its first step.
MemoryPlan plan_memory(const ModelConfig& config, const ParameterLayout& layout, const TrainingShape& shape);

}  // namespace lathe
