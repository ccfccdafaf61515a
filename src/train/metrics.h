// What a run says of each step: the log line, metrics.jsonl and TensorBoard events.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "train/event_writer.h"

namespace lathe {

struct StepMetrics {
  std::int64_t step = 0;
  std::int64_t max_steps = 0;
  double step_time = 0;  // seconds, without saving and validation
  double cross_entropy_loss = 0;
  std::optional<double> load_balance_loss;  // if its coefficient is not 0
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
  std::size_t peak_memory_bytes = 0;
  bool gpu = false;  // whose memory that is
  std::int64_t consumed_samples = 0;
  std::int64_t skipped = 0;  // steps so far whose gradient was not finite
};

struct ValidationMetrics {
  std::int64_t step = 0;
  double loss = 0;
  std::int64_t tokens = 0;
};

// "step 00000016/00000025 | step-time 24.666 sec | ..."
std::string step_line(const StepMetrics& metrics);
// "validation | step 00000100 | cross-entropy-loss 1.2345 | perplexity 3.4367 | tokens 65,536"
std::string validation_line(const ValidationMetrics& metrics);

class MetricsWriter {
 public:
  // Appends to `folder`/metrics.jsonl; rows after `last_step`, and a row that was cut off, are dropped first.
  MetricsWriter(const std::filesystem::path& folder, std::int64_t last_step, bool tensorboard);

  // Log line, metrics row and events, each flushed.
  void write(const StepMetrics& metrics);
  void write(const ValidationMetrics& metrics);

 private:
  void append(const std::string& row);

  std::filesystem::path path_;
  std::ofstream rows_;
  std::unique_ptr<EventWriter> events_;
};

}  // namespace lathe
