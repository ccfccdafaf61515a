#include "train/metrics.h"

#include <array>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"

namespace lathe {
namespace {

// The rows of an earlier run up to and including `last_step`; without a row that a kill cut short, and what follows it.
std::string kept_rows(const std::filesystem::path& path, std::int64_t last_step) {
  if (!std::filesystem::exists(path)) return "";
  const std::string text = read_text_file(path);
  std::string kept;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string_view row(text.data() + begin, end - begin);
    try {
      const Json json = Json::parse(row, path.string());
      const Json* step = json.find("step");
      if (step == nullptr) break;
      if (step->integer() <= last_step) kept.append(row).push_back('\n');
    } catch (const InputError&) {
      break;
    }
    begin = end + 1;
  }
  return kept;
}

}  // namespace

std::string step_line(const StepMetrics& metrics) {
  std::string line = fmt::format("step {:08d}/{:08d} | step-time {:.3f} sec | cross-entropy-loss {:.4f}", metrics.step,
                                 metrics.max_steps, metrics.step_time, metrics.cross_entropy_loss);
  if (metrics.load_balance_loss) line += fmt::format(" | load-balance-loss {:.6f}", *metrics.load_balance_loss);
  line += fmt::format(
      " | learning-rate {:.6e} | gradient-norm {:.4f} | tokens-per-second {} | {} {:.2f} GB", metrics.learning_rate,
      metrics.gradient_norm, with_commas(std::llround(metrics.tokens_per_second)),
      metrics.gpu ? "peak-gpu-memory" : "peak-memory", static_cast<double>(metrics.peak_memory_bytes) * 1e-9);
  if (metrics.skipped > 0) line += fmt::format(" | skipped {}", metrics.skipped);
  return line;
}

std::string validation_line(const ValidationMetrics& metrics) {
  return fmt::format("validation | step {:08d} | cross-entropy-loss {:.4f} | perplexity {:.4f} | tokens {}",
                     metrics.step, metrics.loss, std::exp(metrics.loss), with_commas(metrics.tokens));
}

MetricsWriter::MetricsWriter(const std::filesystem::path& folder, std::int64_t last_step, bool tensorboard)
    : path_(folder / "metrics.jsonl") {
  const std::filesystem::path fresh = folder / ".tmp-metrics.jsonl";
  write_file_durably(fresh, kept_rows(path_, last_step));
  std::filesystem::rename(fresh, path_);
  rows_.open(path_, std::ios::app);
  check(rows_.is_open(), "{}: cannot be written", path_.string());
  if (tensorboard) events_ = std::make_unique<EventWriter>(folder, last_step + 1);
}

void MetricsWriter::append(const std::string& row) {
  rows_ << row << '\n' << std::flush;
  check(rows_.good(), "{}: writing failed", path_.string());
}

void MetricsWriter::write(const StepMetrics& metrics) {
  write_log_line(step_line(metrics));
  const double balance = metrics.load_balance_loss.value_or(0.0);
  Json row;
  row.set("step", metrics.step);
  row.set("step_time", metrics.step_time);
  row.set("cross_entropy_loss", metrics.cross_entropy_loss);
  row.set("load_balance_loss", balance);
  row.set("learning_rate", metrics.learning_rate);
  row.set("gradient_norm", metrics.gradient_norm);
  row.set("tokens_per_second", metrics.tokens_per_second);
  row.set("peak_memory_bytes", static_cast<std::int64_t>(metrics.peak_memory_bytes));
  row.set("consumed_samples", metrics.consumed_samples);
  append(row.dump());
  if (!events_) return;
  std::vector<Scalar> scalars = {{"cross-entropy-loss", metrics.cross_entropy_loss},
                                 {"learning-rate", metrics.learning_rate},
                                 {"gradient-norm", metrics.gradient_norm},
                                 {"tokens-per-second", metrics.tokens_per_second},
                                 {"step-time", metrics.step_time}};
  if (metrics.load_balance_loss) scalars.push_back({"load-balance-loss", balance});
  events_->write(metrics.step, scalars);
}

void MetricsWriter::write(const ValidationMetrics& metrics) {
  write_log_line(validation_line(metrics));
  Json row;
  row.set("step", metrics.step);
  row.set("validation_loss", metrics.loss);
  row.set("perplexity", std::exp(metrics.loss));
  row.set("tokens", metrics.tokens);
  append(row.dump());
  if (events_) events_->write(metrics.step, std::array{Scalar{"validation-loss", metrics.loss}});
}

}  // namespace lathe
