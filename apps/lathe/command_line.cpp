#include "lathe/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "lathe/arguments.h"
#include "lathe/bench_command.h"
#include "lathe/bench_step_command.h"
#include "lathe/commands.h"
#include "lathe/data_command.h"
#include "lathe/nearest_name.h"
#include "lathe/tokenize_command.h"

namespace lathe {
namespace {

using Action = std::function<int()>;
constexpr std::int64_t kMaxCount = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMaxSeed = std::numeric_limits<std::int64_t>::max();

// One subcommand with its options; what its flags mean lands in `options`.
template <typename Options>
class Command {
 public:
  Command(CLI::App& parent, const std::string& name, const std::string& description)
      : app_(parent.add_subcommand(name, description)), options_(std::make_shared<Options>()) {}

  // `store(options, text)` reads the flag's value.
  template <typename Store>
  CLI::Option* add(const std::string& flag, const std::string& type, const std::string& help, Store store) {
    const auto read = [options = options_, store](const std::string& text) { store(*options, text); };
    return app_->add_option_function<std::string>(flag, read, help)->type_name(type);
  }

  CLI::Option* add_path(const std::string& flag, std::filesystem::path Options::*field, const std::string& type,
                        const std::string& help) {
    return add(flag, type, help, [flag, field](Options& options, const std::string& text) {
      require(!text.empty(), "{}: expected a path, found an empty text", flag);
      options.*field = text;
    });
  }

  CLI::Option* add_integer(const std::string& flag, std::int64_t Options::*field, std::int64_t min, std::int64_t max,
                           const std::string& help) {
    return add(flag, "N", help, [=](Options& options, const std::string& text) {
      options.*field = parse_integer(flag, text, min, max);
    });
  }

  // One of a few words.
  void add_choice(const std::string& flag, std::string Options::*field, const std::vector<std::string>& allowed,
                  const std::string& help) {
    add(flag, fmt::format("{}", fmt::join(allowed, "|")), help, [=](Options& options, const std::string& text) {
      require(std::ranges::find(allowed, text) != allowed.end(), "{} {}: expected one of {}", flag,
              text.empty() ? "''" : text.substr(0, 80), fmt::join(allowed, ", "));
      options.*field = text;
    });
  }

  void add_device() {
    add("--device", "auto|cpu|cuda", "where the model runs", [](Options& options, const std::string& text) {
      require(text == "auto" || text == "cpu" || text == "cuda", "--device {}: expected auto, cpu or cuda", text);
      options.device = text;
    });
  }

  void add_tokens(std::size_t min_count) {
    add("--tokens", "IDS", "token ids, as in 1,2,3", [min_count](Options& options, const std::string& text) {
      options.tokens = parse_tokens("--tokens", text, min_count);
    })->required();
  }

  // `run` is what `action` becomes when this command is given.
  void runs(Action& action, int (*run)(const Options&)) {
    app_->callback([&action, options = options_, run] { action = [options, run] { return run(*options); }; });
  }
  void runs(Action& action, void (*run)(const Options&)) {
    app_->callback([&action, options = options_, run] {
      action = [options, run] {
        run(*options);
        return 0;
      };
    });
  }

  CLI::App* app() { return app_; }
  Options& options() { return *options_; }

 private:
  CLI::App* app_;
  std::shared_ptr<Options> options_;
};

// Of TrainOptions, PlanOptions or BenchStepOptions.
template <typename Options>
void add_run_config(Command<Options>& command) {
  command.add_path("--config", &Options::config, "FILE", "the run's settings, run.toml")->required();
  command.app()
      ->add_option("--set", command.options().set, "a setting that replaces the file's; may be repeated")
      ->type_name("section.key=value")
      ->allow_extra_args(false);
}

void add_train(CLI::App& app, Action& action) {
  Command<TrainOptions> train(app, "train", "Train a model");
  add_run_config(train);
  train.app()
      ->add_flag("--resume", train.options().resume, "go on from the newest checkpoint")
      ->disable_flag_override();
  train.runs(action, run_train);
}

void add_plan(CLI::App& app, Action& action) {
  Command<PlanOptions> plan(app, "plan", "Predict the memory that a run takes");
  add_run_config(plan);
  plan.runs(action, run_plan);
}

void add_eval(CLI::App& app, Action& action) {
  Command<EvalOptions> eval(app, "eval", "Measure cross-entropy and perplexity on a corpus");
  eval.add_path("--checkpoint", &EvalOptions::checkpoint, "DIR", "the model")->required();
  eval.add_path("--data", &EvalOptions::data, "PREFIX", "token files, PREFIX.bin and PREFIX.idx")->required();
  eval.add_integer("--samples", &EvalOptions::samples, 1, kMaxCount, "how many sequences; all if not given");
  eval.add_integer("--sequence-length", &EvalOptions::sequence_length, 1, kMaxCount, "as in training if not given");
  eval.add_device();
  eval.runs(action, run_eval);
}

void add_generate(CLI::App& app, Action& action) {
  Command<GenerateOptions> generate(app, "generate", "Sample text from a model");
  generate.add_path("--checkpoint", &GenerateOptions::checkpoint, "DIR", "the model")->required();
  generate
      .add("--prompt", "TEXT", "what the text begins with",
           [](GenerateOptions& options, const std::string& text) { options.prompt = text; })
      ->required();
  generate.add_integer("--max-tokens", &GenerateOptions::max_tokens, 1, kMaxCount, "at most this many (256)");
  generate.add("--temperature", "T", "0: the likeliest token (1.0)",
               [](GenerateOptions& options, const std::string& text) {
                 options.temperature = parse_number("--temperature", text, 0, 1000);
               });
  generate.add(
      "--top-p", "P", "sample from the likeliest tokens of this mass (1.0)",
      [](GenerateOptions& options, const std::string& text) { options.top_p = parse_number("--top-p", text, 0, 1); });
  generate.add_integer("--seed", &GenerateOptions::seed, 0, kMaxSeed, "of the random numbers (1234)");
  generate.add_device();
  generate.runs(action, run_generate);
}

template <typename Options>
void add_on_tokens(CLI::App& app, Action& action, const std::string& name, const std::string& description,
                   std::size_t min_count, int (*run)(const Options&)) {
  Command<Options> command(app, name, description);
  command.add_path("--checkpoint", &Options::checkpoint, "DIR", "the model")->required();
  command.add_tokens(min_count);
  command.add_path("--out", &Options::out, "FILE", "the .safetensors file to write")->required();
  command.add_device();
  command.runs(action, run);
}

void add_tokenize(CLI::App& app, Action& action) {
  Command<TokenizeOptions> tokenize(app, "tokenize", "Turn .txt, .jsonl and .jsonl.zst into token files");
  tokenize
      .add("--tokenizer", "bytes|DIR", "bytes, or a folder with tokenizer.json",
           [](TokenizeOptions& options, const std::string& text) {
             require(!text.empty(), "--tokenizer: expected bytes or a folder with tokenizer.json");
             options.tokenizer = text;
           })
      ->required();
  tokenize.add_path("--out", &TokenizeOptions::out, "PREFIX", "writes PREFIX.bin and PREFIX.idx")->required();
  tokenize.app()
      ->add_option_function<std::vector<std::string>>(
          "FILE",
          [options = &tokenize.options()](const std::vector<std::string>& files) {
            options->files.assign(files.begin(), files.end());
          },
          "text files")
      ->required();
  tokenize.runs(action, run_tokenize);
}

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Look into token files")->require_subcommand(1);
  Command<DataStatsOptions> stats(*data, "stats", "Count tokens, documents and 1- to 4-gram cross-entropies");
  stats.add_path("PREFIX", &DataStatsOptions::prefix, "", "token files, PREFIX.bin and PREFIX.idx")->required();
  stats.add("--against", "PREFIX", "measure on these token files instead",
            [](DataStatsOptions& options, const std::string& text) { options.against = text; });
  stats.runs(action, run_data_stats);

  Command<DataShowOptions> show(*data, "show", "Print one sample as text");
  show.add_path("PREFIX", &DataShowOptions::prefix, "", "token files, PREFIX.bin and PREFIX.idx")->required();
  show.add_integer("--sample", &DataShowOptions::sample, 0, kMaxSeed, "which one, from 0")->required();
  show.add_integer("--sequence-length", &DataShowOptions::sequence_length, 1, kMaxCount, "of a sample (2048)");
  show.add("--tokenizer", "bytes|DIR", "bytes, or a folder with tokenizer.json (bytes)",
           [](DataShowOptions& options, const std::string& text) { options.tokenizer = text; });
  show.runs(action, run_data_show);
}

void add_bench(CLI::App& app, Action& action) {
  using Options = BenchAttentionOptions;
  CLI::App* bench = app.add_subcommand("bench", "Time a training step, or what it is made of")->require_subcommand(1);
  Command<Options> attention(*bench, "attention", "Time the attention operator; a JSON object a line");
  attention.add_choice("--device", &Options::device, {"auto", "cpu", "cuda"}, "where it runs (auto)");
  attention.add("--backend", "NAME|all", "one of lathe info, or all that support the shape (all)",
                [](Options& options, const std::string& text) { options.backend = text; });
  attention.add(
      "--shapes", "BxS,...", "batch and sequence length, as in 1x2048,4x4096:full; full: without a mask",
      [](Options& options, const std::string& text) { options.shapes = parse_attention_shapes("--shapes", text); });
  attention.add_integer("--heads", &Options::heads, 1, 1024, "16, on the CPU 2, if not given");
  attention.add_choice("--pass", &Options::pass, {"forward", "backward", "backward_deterministic", "all"},
                       "which to time (all)");
  attention.add_choice("--regime", &Options::regime, {"burst", "sustained", "all"},
                       "after idling, back to back, or both (all)");
  attention.runs(action, run_bench_attention);

  Command<BenchStepOptions> step(*bench, "step", "Time a run's training step, and its share of the device, by op");
  add_run_config(step);
  step.add_integer("--steps", &BenchStepOptions::steps, 1, kMaxCount, "timed as a whole (10)");
  step.add_integer("--warmup", &BenchStepOptions::warmup, 0, kMaxCount, "before those (3)");
  step.add("--out", "FILE", "also write the table as JSON", [](BenchStepOptions& options, const std::string& text) {
    require(!text.empty(), "--out: expected a path, found an empty text");
    options.out = text;
  });
  step.runs(action, run_bench_step);
}

void add_folder_commands(CLI::App& app, Action& action) {
  Command<ExportOptions> export_command(app, "export", "Write a Hugging Face folder");
  export_command.add_path("--checkpoint", &ExportOptions::checkpoint, "DIR", "the model")->required();
  export_command.add_path("--out", &ExportOptions::out, "DIR", "the folder to write")->required();
  export_command.runs(action, run_export);

  Command<ImportOptions> import(app, "import", "Turn a Hugging Face folder into a checkpoint");
  import.add_path("--from", &ImportOptions::from, "DIR", "the Hugging Face folder")->required();
  import.add_path("--out", &ImportOptions::out, "DIR", "the checkpoint to write")->required();
  import.runs(action, run_import);

  Command<VerifyOptions> verify(app, "verify", "Check a checkpoint's files against their checksums");
  verify.add_path("DIR", &VerifyOptions::folder, "", "a checkpoint or a run's folder")->required();
  verify.runs(action, run_verify);

  Command<PlotOptions> plot(app, "plot", "Draw a run's loss as loss.png in its folder");
  plot.add_path("DIR", &PlotOptions::run, "", "a run's folder")->required();
  plot.add("--data", "PREFIX", "with --against: also the n-gram losses counted on these token files",
           [](PlotOptions& options, const std::string& text) { options.counted = text; });
  plot.add("--against", "PREFIX", "and measured on these",
           [](PlotOptions& options, const std::string& text) { options.measured = text; });
  plot.runs(action, run_plot);

  app.add_subcommand("info", "Version, build, devices and backends")->callback([&action] { action = run_info; });
}

// The innermost command that was given, and its name with those around it.
std::pair<const CLI::App*, std::string> given_command(const CLI::App& app) {
  const CLI::App* command = &app;
  std::string name = "lathe";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    name += " " + command->get_name();
  }
  return {command, name};
}

std::vector<std::string> names_of_flags(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<std::string> names_of_commands(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands({})) names.push_back(sub->get_name());
  return names;
}

// An argument that nothing takes: a wrong flag, a wrong command or one argument too many.
[[noreturn]] void refuse_unknown_argument(const CLI::App& app, const std::string& argument) {
  const auto [command, name] = given_command(app);
  const std::string shown = argument.substr(0, 80);
  const bool is_flag = argument.starts_with("-");
  const std::vector<std::string> known = is_flag ? names_of_flags(*command) : names_of_commands(*command);
  if (known.empty()) refuse("{}: unexpected argument '{}'", name, shown);
  const std::vector<std::string_view> views(known.begin(), known.end());
  const std::string_view bare = std::string_view(argument).substr(0, argument.find('='));
  refuse("{}: unknown {} '{}', the nearest known is '{}'", name, is_flag ? "flag" : "command", shown,
         nearest_name(bare, views));
}

[[noreturn]] void refuse_arguments(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(true);
  if (!unknown.empty()) refuse_unknown_argument(app, unknown.front());
  const auto [command, name] = given_command(app);
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && !command->get_subcommands({}).empty())
    refuse("{}: a command is missing, one of {}", name, fmt::join(names_of_commands(*command), ", "));
  refuse("{}: {}", name, error.what());
}

Action print(std::string text) {
  return [text = std::move(text)] {
    fmt::print("{}", text);
    return 0;
  };
}

}  // namespace

std::function<int()> parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Lathe trains DeepSeek-V2-style mixture-of-experts models.", "lathe");
  app.require_subcommand(1);
  app.set_version_flag("--version", "lathe " LATHE_VERSION);
  Action action;
  add_train(app, action);
  add_plan(app, action);
  add_eval(app, action);
  add_generate(app, action);
  add_on_tokens<LogitsOptions>(app, action, "logits", "Write a sequence's logits", 1, run_logits);
  add_on_tokens<GradientsOptions>(app, action, "gradients", "Write a sequence's loss and its gradients", 2,
                                  run_gradients);
  add_tokenize(app, action);
  add_data(app, action);
  add_bench(app, action);
  add_folder_commands(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return print(app.help());
  } catch (const CLI::CallForAllHelp&) {
    return print(app.help("", CLI::AppFormatMode::All));
  } catch (const CLI::CallForVersion& version) {
    return print(std::string(version.what()) + "\n");
  } catch (const CLI::ParseError& error) {
    refuse_arguments(app, error);
  }
  return action;
}

}  // namespace lathe
