#include "lathe/run_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace lathe {
namespace {
namespace fs = std::filesystem;

constexpr const char* kMinimal = "[model]\nconfig = 'config.json'\n[data]\ntrain = ['corpus/train']\n";

class RunConfigTest : public testing::Test {
 protected:
  RunConfigTest() : folder_(fs::temp_directory_path() / ("lathe_run_config_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~RunConfigTest() override { fs::remove_all(folder_); }

  fs::path write(const std::string& text, const std::string& name = "run.toml") const {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    return load_run_config(write(text), overrides);
  }
  // The message of the InputError that loading throws.
  std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    try {
      load(text, overrides);
    } catch (const InputError& error) {
      return error.what();
    }
    ADD_FAILURE() << "accepted: " << text;
    return {};
  }
  std::string minimal_with(const std::string& text) const { return kMinimal + text + "\n"; }

  fs::path folder_;
};

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST_F(RunConfigTest, OnlyConfigAndTrainAreRequired) {
  const RunConfig config = load(kMinimal);
  const RunConfig defaults;
  EXPECT_EQ(config.model.config, folder_ / "config.json");
  ASSERT_EQ(config.data.train.size(), 1U);
  EXPECT_EQ(config.data.train[0].path, folder_ / "corpus/train");
  EXPECT_EQ(config.data.train[0].weight, 1.0);
  EXPECT_EQ(config.training.seed, defaults.training.seed);
  EXPECT_EQ(config.scheduler.max_lr, defaults.scheduler.max_lr);
  EXPECT_EQ(config.checkpoint.directory, folder_ / "runs/quickstart");
  expect_contains(refusal("[model]\nconfig = 'a'\n"), "data.train is missing");
  expect_contains(refusal("[data]\ntrain = ['a']\n"), "model.config is missing");
}

TEST_F(RunConfigTest, ReadsEveryKindOfValue) {
  const RunConfig config = load(
      "[model]\nconfig = '/models/config.json'\ninit_std = 0.5\nnorm_topk_prob = 'ignore'\n"
      "[data]\ntrain = ['a', { path = '/b', weight = 3 }]\nvalidation = ['../v']\ntokenizer = 'tok'\n"
      "[training]\nseed = 9223372036854775807\nreset_attention_mask = true\ngradient_clip = 0\n"
      "micro_batch_size = 8\nglobal_batch_size = 24\nvalidation_interval = 2\n"
      "[scheduler]\ntype = 'wsd'\nmax_lr = 1e-2\nwarmup_steps = 3\n");
  EXPECT_EQ(config.model.config, "/models/config.json");
  EXPECT_EQ(config.model.init_std, 0.5);
  EXPECT_EQ(config.model.norm_topk_prob, "ignore");
  ASSERT_EQ(config.data.train.size(), 2U);
  EXPECT_EQ(config.data.train[0].path, folder_ / "a");
  EXPECT_EQ(config.data.train[1].path, "/b");
  EXPECT_EQ(config.data.train[1].weight, 3.0);
  EXPECT_EQ(config.data.validation[0].path, folder_.parent_path() / "v");
  EXPECT_EQ(config.data.tokenizer, (folder_ / "tok").string());
  EXPECT_EQ(config.training.seed, 9223372036854775807U);
  EXPECT_TRUE(config.training.reset_attention_mask);
  EXPECT_EQ(config.training.gradient_clip, 0.0);
  EXPECT_EQ(config.training.global_batch_size, 24);
  EXPECT_EQ(config.scheduler.max_lr, 1e-2);
}

TEST_F(RunConfigTest, TheDumpReadsBackEqual) {
  const RunConfig config = load(
      "[model]\nconfig = '/models/config.json'\ninit_std = 0.1\n"
      "[data]\ntrain = ['a \"quoted\" \\ name', { path = '../b', weight = 0.3 }]\n"
      "[scheduler]\nmax_lr = 0.1\nmin_lr = 1e-300\n",
      {"training.seed=7", "checkpoint.directory=runs/x"});
  const RunConfig again = load_run_config(write(config.toml, "again.toml"), {});
  EXPECT_EQ(again.toml, config.toml);
  EXPECT_EQ(again.data.train[0].path, config.data.train[0].path);
  EXPECT_EQ(again.data.train[1].weight, 0.3);
  EXPECT_EQ(again.scheduler.min_lr, 1e-300);
  EXPECT_EQ(again.training.seed, 7U);
  EXPECT_EQ(fs::absolute(again.checkpoint.directory).lexically_normal(), fs::absolute("runs/x"));
  EXPECT_TRUE(changed_settings(config.toml, again.settings).empty());
}

TEST_F(RunConfigTest, ADumpMovesWithItsFolder) {
  const RunConfig relative = load(kMinimal);
  const RunConfig absolute = load(kMinimal, {"data.train=['" + (folder_ / "corpus/train").string() + "']"});
  EXPECT_EQ(relative.toml, absolute.toml);
  EXPECT_EQ(relative.toml.find(folder_.string()), std::string::npos) << relative.toml;
}

TEST_F(RunConfigTest, AFileOfTheCurrentFolderGivesRelativePaths) {
  write(kMinimal);
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  const RunConfig here = load_run_config("run.toml", {});
  fs::current_path(before);
  EXPECT_EQ(here.data.train[0].path, "corpus/train");
  EXPECT_EQ(here.checkpoint.directory, "runs/quickstart");
  EXPECT_EQ(here.toml, load(kMinimal).toml);
}

TEST_F(RunConfigTest, OverridesAreTomlThenTextAndTheLastWins) {
  const RunConfig config = load(minimal_with("[training]\nmax_steps = 3"),
                                {"training.max_steps=4", "training.max_steps=5", "checkpoint.directory=out",
                                 "data.train=['x', \"y\"]", "scheduler.type=linear", "data.tokenizer=a=b # c"});
  EXPECT_EQ(config.training.max_steps, 5);
  EXPECT_EQ(config.checkpoint.directory, "out");  // --set: relative to the current folder
  EXPECT_EQ(config.data.train[0].path, "x");
  EXPECT_EQ(config.scheduler.type, "linear");
  EXPECT_EQ(config.data.tokenizer, "a=b # c");
  // Only the value in effect is judged.
  EXPECT_EQ(load(minimal_with("[training]\ndevice = 'tpu'"), {"training.device=cpu"}).training.device, "cpu");
}

TEST_F(RunConfigTest, OverridesAreCheckedLikeTheFile) {
  expect_contains(refusal(kMinimal, {"training.max_steps=x"}), "training.max_steps = \"x\": expected a whole number");
  expect_contains(refusal(kMinimal, {"checkpoint.directory=7"}), "checkpoint.directory = 7: expected a path");
  expect_contains(refusal(kMinimal, {"checkpoint.directory="}), "expected a path");
  expect_contains(refusal(kMinimal, {"training.max_step=1"}), "nearest known is training.max_steps");
  expect_contains(refusal(kMinimal, {"training=1"}), "expected a table");
  expect_contains(refusal(kMinimal, {"seed"}), "expected section.key=value");
  expect_contains(refusal(kMinimal, {"=1"}), "expected section.key=value");
  expect_contains(refusal(kMinimal, {"training.seed=1\n[model]\nconfig = 'x'"}), "training.seed");
  expect_contains(refusal(kMinimal, {"checkpoint.directory=\xff"}), "--set checkpoint.directory");
}

TEST_F(RunConfigTest, SyntaxErrorsNameTheLine) {
  expect_contains(refusal(minimal_with("[training]\nseed = 1\nseed = 2")), "run.toml line 7");
  expect_contains(refusal(minimal_with("[training]\nseed = 99999999999999999999")), "run.toml line 6");
  expect_contains(refusal(minimal_with("[training\n")), "run.toml line 5");
  expect_contains(refusal(minimal_with("[training]\nseed = 1979-05-27")), "date");
  expect_contains(refusal("[model]\nconfig = '\xff'\n"), "run.toml line");
  std::string deep = "[model]\nconfig = ";
  for (int i = 0; i < 5000; ++i) deep += '[';
  EXPECT_NE(refusal(deep), "");
}

TEST_F(RunConfigTest, EmptyFilesAreRefused) {
  expect_contains(refusal(""), "empty");
  expect_contains(refusal("# nothing\n\n", {"model.config=a", "data.train=['b']"}), "empty");
  EXPECT_THROW(load_run_config(folder_ / "missing.toml", {}), InputError);
  EXPECT_THROW(load_run_config(folder_, {}), InputError);
}

TEST_F(RunConfigTest, UnknownKeysNameTheNearest) {
  expect_contains(refusal(minimal_with("[training]\nmax_step = 3")),
                  "run.toml line 6: unknown key \"training.max_step\", the nearest known is training.max_steps");
  expect_contains(refusal(minimal_with("[training]\nmax_lr = 3")), "nearest known is scheduler.max_lr");
  expect_contains(refusal(minimal_with("[trainig]\n")), "unknown table \"trainig\", the nearest known is [training]");
  expect_contains(refusal("max_steps = 3\n" + std::string(kMinimal)), "nearest known is training.max_steps");
  expect_contains(refusal("data = 3\n[model]\nconfig = 'a'\n"), "expected a table, [data]");
  expect_contains(refusal("\"training.seed\" = 3\n" + std::string(kMinimal)), "unknown key");
  expect_contains(refusal("[model]\nconfig = 'a'\n[data]\ntrain = [{ path = 'x', wight = 1 }]\n"),
                  "nearest known is weight");
}

struct BadValue {
  const char* text;
  const char* message;
};

class BadValueTest : public RunConfigTest, public testing::WithParamInterface<BadValue> {};

TEST_P(BadValueTest, IsRefusedWithWhatIsAllowed) {
  const BadValue& bad = GetParam();
  expect_contains(refusal(minimal_with(bad.text)), bad.message);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadValueTest,
    testing::Values(
        BadValue{"[training]\nmax_steps = 0", "training.max_steps = 0: expected a whole number from 1 to 2147483647"},
        BadValue{"[training]\nmax_steps = 2147483648", "expected a whole number from 1 to 2147483647"},
        BadValue{"[training]\nmax_steps = 1.0", "training.max_steps = 1.0: expected a whole number"},
        BadValue{"[training]\nmax_steps = true", "training.max_steps = true: expected a whole number"},
        BadValue{"[training]\nsequence_length = -1", "sequence_length = -1: expected"},
        BadValue{"[training]\nseed = -1", "training.seed = -1: expected a whole number from 0"},
        BadValue{"[training]\ngradient_clip = nan", "training.gradient_clip = nan: expected a number of at least 0"},
        BadValue{"[training]\ngradient_clip = '1'", "training.gradient_clip = \"1\": expected a number"},
        BadValue{"[training]\nmoe_load_balance_coef = -0.1", "moe_load_balance_coef = -0.1: expected"},
        BadValue{"[training]\nmoe_load_balance_type = 'batch'", "\"micro-batch\" or \"sequence\" or \"global-batch\""},
        BadValue{"[training]\nforce_balanced_router = 'yes'", "expected true or false"},
        BadValue{"[training]\ndevice = 'gpu'", "expected \"auto\" or \"cpu\" or \"cuda\""},
        BadValue{"[training]\ndtype = 'fp16'", "expected \"auto\" or \"fp32\" or \"bf16\""},
        BadValue{"[training]\nrecompute = ['norm']", "not supported yet"},
        BadValue{"[training]\nrecompute = ['nrm']", "expected a list of"},
        BadValue{"[training]\nmicro_batch_size = 3", "global_batch_size = 1024 does not divide by"},
        BadValue{"[training]\nmicro_batch_size = 1024\nsequence_length = 2147483647", "tokens in a micro-batch"},
        BadValue{"[training]\nvalidation_interval = 5", "data.validation"},
        BadValue{"[optimizer]\ntype = 'sgd'", "expected \"adamw\""},
        BadValue{"[optimizer]\nbeta1 = 1", "optimizer.beta1 = 1: expected a number from 0 to below 1"},
        BadValue{"[optimizer]\neps = 0", "optimizer.eps = 0: expected a number greater than 0"},
        BadValue{"[optimizer]\nweight_decay = inf", "optimizer.weight_decay = inf: expected"},
        BadValue{"[optimizer]\nstate_dtype = 'bf16'", "not supported yet"},
        BadValue{"[optimizer]\noffload = true", "not supported yet"},
        BadValue{"[scheduler]\nmax_lr = 1e-9", "scheduler.min_lr = 3e-05 (the default) is above scheduler.max_lr"},
        BadValue{"[scheduler]\ntype = 'constant'\nmin_lr = 1", "scheduler.min_lr = 1 is above"},
        BadValue{"[scheduler]\ntype = 'wsd'\nwarmup_steps = 20\ndecay_steps = 6", "do not fit"},
        BadValue{"[parallel]\nexpert_parallel_size = 2", "expert_parallel_size = 2: not supported yet"},
        BadValue{"[parallel]\npipeline_parallel_size = 0", "expected a whole number from 1"},
        BadValue{"[checkpoint]\nkeep = 0", "checkpoint.keep = 0: expected a whole number from 1"},
        BadValue{"[checkpoint]\ndirectory = ''", "expected a path"},
        BadValue{"[checkpoint]\ndirectory = \"a\\u0000b\"", "without control characters"},
        BadValue{"[model.config]\nx = 1", "line 5"}));

TEST_F(RunConfigTest, BadDataSets) {
  const auto train = [&](const std::string& value) {
    return refusal("[model]\nconfig = 'a'\n[data]\ntrain = " + value + "\n");
  };
  expect_contains(train("'corpus'"), "expected a list of prefixes");
  expect_contains(train("[]"), "at least one prefix");
  expect_contains(train("['a', 3]"), "item 2: expected a prefix");
  expect_contains(train("['']"), "item 1: expected a path");
  expect_contains(train("[{ weight = 1 }]"), "item 1: path is missing");
  expect_contains(train("[{ path = 'a', weight = 0 }]"), "expected a number greater than 0");
  expect_contains(train("[{ path = 'a', weight = nan }]"), "expected a number greater than 0");
}

TEST_F(RunConfigTest, LongValuesAreCut) {
  const std::string message = refusal(minimal_with("[training]\ndevice = '" + std::string(100000, 'x') + "'"));
  EXPECT_LT(message.size(), 400U);
  EXPECT_LT(refusal(minimal_with("[training]\n" + std::string(100000, 'x') + " = 1")).size(), 400U);
}

TEST_F(RunConfigTest, ConstantRatesIgnoreTheDefaultMinimum) {
  EXPECT_EQ(load(minimal_with("[scheduler]\ntype = 'constant'\nmax_lr = 1e-9")).scheduler.max_lr, 1e-9);
}

TEST_F(RunConfigTest, ResumeNamesChangesAndRefusesThoseOfTheModelAndTheSamples) {
  const RunConfig saved = load(kMinimal);
  const auto changes = require_resumable(
      saved.toml, load(kMinimal, {"training.max_steps=50", "scheduler.max_lr=1", "training.micro_batch_size=2"}));
  ASSERT_EQ(changes.size(), 3U);
  EXPECT_EQ(changes[0].key, "training.micro_batch_size");
  EXPECT_EQ(changes[1].key, "training.max_steps");
  EXPECT_EQ(changes[1].saved, "25");
  EXPECT_EQ(changes[1].current, "50");
  EXPECT_EQ(changes[2].key, "scheduler.max_lr");
  for (const std::string override : {"model.config=b", "model.softmax_scale=0.5", "model.norm_topk_prob=ignore",
                                     "data.train=['b']", "training.sequence_length=64", "training.seed=3"}) {
    try {
      require_resumable(saved.toml, load(kMinimal, {override}));
      ADD_FAILURE() << override << " was not refused";
    } catch (const InputError& error) {
      expect_contains(error.what(), override.substr(0, override.find('=')));
    }
  }
}

TEST_F(RunConfigTest, KeysThatOneSideLacksAreNamed) {
  const std::vector<RunConfig::Setting> current{{"a.x", "1", true}, {"a.y", "2", false}};
  const auto changes = changed_settings("[a]\ny = 2\n[b]\nz = \"= [\"\n", current);
  ASSERT_EQ(changes.size(), 2U);
  EXPECT_EQ(changes[0].key, "a.x");
  EXPECT_EQ(changes[0].saved, "unset");
  EXPECT_FALSE(changes[0].refused);
  EXPECT_EQ(changes[1].key, "b.z");
  EXPECT_EQ(changes[1].saved, "\"= [\"");
  EXPECT_EQ(changes[1].current, "unset");
}

}  // namespace
}  // namespace lathe
