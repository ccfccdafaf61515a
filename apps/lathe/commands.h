// The commands: each is a thin function over the library, gets checked options and returns the exit code. They throw
// InputError before anything is started or written, and Error later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lathe {

struct TrainOptions {
  std::filesystem::path config;
  std::vector<std::string> set;  // "section.key=value"
  bool resume = false;
};
int run_train(const TrainOptions& options);

struct PlanOptions {
  std::filesystem::path config;
  std::vector<std::string> set;  // "section.key=value"
};
int run_plan(const PlanOptions& options);

struct EvalOptions {
  std::filesystem::path checkpoint;
  std::filesystem::path data;        // prefix of .bin and .idx
  std::int64_t samples = 0;          // 0: all
  std::int64_t sequence_length = 0;  // 0: as the model was trained
  std::string device = "auto";
};
int run_eval(const EvalOptions& options);

struct GenerateOptions {
  std::filesystem::path checkpoint;
  std::string prompt;
  std::int64_t max_tokens = 256;
  double temperature = 1.0;  // 0: the likeliest token
  double top_p = 1.0;
  std::int64_t seed = 1234;
  std::string device = "auto";
};
int run_generate(const GenerateOptions& options);

struct LogitsOptions {
  std::filesystem::path checkpoint;
  std::vector<std::int32_t> tokens;  // at least 1
  std::filesystem::path out;
  std::string device = "auto";
};
int run_logits(const LogitsOptions& options);

struct GradientsOptions {
  std::filesystem::path checkpoint;
  std::vector<std::int32_t> tokens;  // at least 2
  std::filesystem::path out;
  std::string device = "auto";
};
int run_gradients(const GradientsOptions& options);

struct ExportOptions {
  std::filesystem::path checkpoint;
  std::filesystem::path out;
};
int run_export(const ExportOptions& options);

struct ImportOptions {
  std::filesystem::path from;
  std::filesystem::path out;
};
int run_import(const ImportOptions& options);

struct VerifyOptions {
  std::filesystem::path folder;
};
int run_verify(const VerifyOptions& options);

struct PlotOptions {
  std::filesystem::path run;
  std::optional<std::filesystem::path> counted;  // token files for the n-gram losses to compare with
  std::optional<std::filesystem::path> measured;
};
int run_plot(const PlotOptions& options);

int run_info();

}  // namespace lathe
