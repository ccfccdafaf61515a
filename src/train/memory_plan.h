// How much memory a run takes, before it takes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"

namespace lathe {

struct MemoryPlan {
  struct Category {
    std::string name;
    std::int64_t bytes = 0;
  };
  std::vector<Category> categories;

  std::int64_t total() const;
  // "weights 5.2 MB, gradients 5.2 MB, ..., total 312.0 MB"
  std::string describe() const;
};

// Training with weights, gradients and moments of `dtype`, `rows` tokens a micro-batch.
MemoryPlan plan_memory(const ModelConfig& config, const ParameterLayout& layout, DType dtype, std::int64_t rows);

}  // namespace lathe
