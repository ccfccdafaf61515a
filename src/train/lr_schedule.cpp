#include "train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace lathe {
namespace {

// How much of [begin, end] lies behind `step`.
double progress(std::int64_t step, std::int64_t begin, std::int64_t end) {
  if (end <= begin) return step >= end ? 1.0 : 0.0;
  return std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
}

}  // namespace

double learning_rate(const RunConfig::Scheduler& scheduler, std::int64_t max_steps, std::int64_t step) {
  const double span = scheduler.max_lr - scheduler.min_lr;
  if (step <= scheduler.warmup_steps)
    return scheduler.max_lr * static_cast<double>(step) / static_cast<double>(scheduler.warmup_steps);
  if (scheduler.type == "constant") return scheduler.max_lr;
  if (scheduler.type == "wsd") {
    const std::int64_t begin = std::max(scheduler.warmup_steps, max_steps - scheduler.decay_steps);
    return scheduler.max_lr - span * progress(step, begin, max_steps);
  }
  const double done = progress(step, scheduler.warmup_steps, max_steps);
  if (scheduler.type == "linear") return scheduler.max_lr - span * done;
  check(scheduler.type == "cosine", "scheduler.type is \"{}\"", scheduler.type);
  return scheduler.min_lr + span * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

}  // namespace lathe
