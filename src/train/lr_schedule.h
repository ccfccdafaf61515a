// The learning rate of each step.
#pragma once

#include <cstdint>

#include "train/run_config.h"

namespace lathe {

// For step 1 to max_steps. Warm-up: max_lr * step / warmup_steps while step <= warmup_steps. Then
//   constant: max_lr
//   cosine, linear: from max_lr down to min_lr, reached at max_steps
//   wsd (warm-up, stable, decay): max_lr, then linear to min_lr over the last decay_steps
double learning_rate(const RunConfig::Scheduler& scheduler, std::int64_t max_steps, std::int64_t step);

}  // namespace lathe
