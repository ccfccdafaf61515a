// Whole runs on a device whose memory the host cannot touch: equal to the CPU's, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "checkpoint/elements.h"
#include "core/json.h"
#include "core/philox.h"
#include "core/test_support.h"
#include "data/token_file_writer.h"
#include "device/guarded_device.h"
#include "device/work_recorder.h"
#include "train/evaluate.h"
#include "train/generate.h"
#include "train/host_copy.h"
#include "train/model_io.h"
#include "train/optimizer.h"
#include "train/trainer.h"
#include "train/training_steps.h"

namespace lathe::testing {
namespace {

namespace fs = std::filesystem;
using test::message_of;

constexpr const char* kModel = R"({"model_type": "deepseek_v2", "vocab_size": 260, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 6, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "attention_bias": true,
    "moe_intermediate_size": 8, "max_position_embeddings": 64, "pad_token_id": 3})";

class DeviceRun : public ::testing::Test {
 protected:
  DeviceRun() {
    test::write_bytes(folder_ / "config.json", kModel);
    write_tokens("train", 3000);
    write_tokens("valid", 200);
  }

  void write_tokens(const std::string& name, std::uint64_t count) {
    const Philox random(count);
    std::vector<std::int32_t> tokens;
    for (std::uint64_t i = 0; i < count; ++i)
      tokens.push_back(i % 40 == 39 ? 257 : 97 + static_cast<std::int32_t>(random.below(i, 20)));
    TokenFileWriter writer(folder_ / name, TokenType::u16);
    writer.append_document(tokens);
    writer.finish();
  }

  static Runtime runtime(DeviceKind kind) {
    if (kind == DeviceKind::cpu) return {make_cpu_device(), &op_table(DeviceKind::cpu), "", DType::f32};
    return {std::make_unique<GuardedDevice>(), &guarded_table(), "", DType::f32};
  }

  RunConfig config(const std::string& run) const {
    RunConfig config;
    config.model.config = folder_ / "config.json";
    config.data.train = {{folder_ / "train", 1.0}};
    config.data.validation = {{folder_ / "valid", 1.0}};
    config.training.sequence_length = 24;
    config.training.micro_batch_size = 2;
    config.training.global_batch_size = 6;
    config.training.max_steps = 4;
    config.training.moe_load_balance_coef = 0.01;
    config.training.reset_attention_mask = true;
    config.training.validation_interval = 2;
    config.training.validation_samples = 3;
    config.scheduler.type = "constant";
    config.checkpoint.directory = folder_ / run;
    config.checkpoint.interval = 2;
    config.logging.tensorboard = false;
    return config;
  }

  // Every tensor file of a checkpoint, and the run's rows without what two equal runs may differ in.
  std::map<std::string, std::string> results(const std::string& run, const std::string& checkpoint) const {
    std::map<std::string, std::string> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / run / checkpoint))
      if (entry.path().extension() == ".safetensors") found[entry.path().filename()] = test::read_bytes(entry.path());
    std::string& rows = found["metrics.jsonl"];
    std::istringstream lines(test::read_bytes(folder_ / run / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line, "metrics.jsonl");
      for (const auto& [key, value] : row.object())
        if (key != "step_time" && key != "tokens_per_second" && key != "peak_memory_bytes")
          rows += key + " " + value.dump() + " ";
      rows += "\n";
    }
    return found;
  }

  std::vector<double> losses(const std::string& run) const {
    std::vector<double> found;
    std::istringstream lines(test::read_bytes(folder_ / run / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line, "metrics.jsonl");
      if (const Json* loss = row.find("cross_entropy_loss")) found.push_back(loss->number());
    }
    return found;
  }

  // What a folder of the session's weights stores them in.
  std::string read_folder_dtype(Session& session) const {
    write_model_folder(folder_.path(), session.config(), session.layout(), session);
    return TensorFolder(folder_.path()).find("model.norm.weight")->dtype;
  }

  test::TemporaryFolder folder_;
};

TEST_F(DeviceRun, EqualsTheRunOnTheCpuStoppedAndResumedToo) {
  train(config("cpu"), runtime(DeviceKind::cpu));
  RunConfig half = config("device");
  half.training.max_steps = 2;
  train(half, runtime(DeviceKind::cuda));
  RunConfig rest = config("device");
  rest.resume = true;
  train(rest, runtime(DeviceKind::cuda));
  const auto expected = results("cpu", "step-00000004");
  ASSERT_EQ(expected.size(), 3U);
  EXPECT_GT(std::ranges::count(expected.at("metrics.jsonl"), '\n'), 4);
  const auto found = results("device", "step-00000004");
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name;
}

TEST_F(DeviceRun, WaitsForTheDeviceOnceAStep) {
  const auto synchronizations = [&](const std::string& run, std::int64_t steps) {
    RunConfig one = config(run);
    one.training.max_steps = steps;
    one.training.validation_interval = 0;
    one.checkpoint.interval = 0;
    const Runtime device = runtime(DeviceKind::cuda);
    train(one, device);
    return dynamic_cast<GuardedDevice&>(*device.device).synchronizations;
  };
  EXPECT_EQ(synchronizations("five", 5) - synchronizations("two", 2), 3);
}

TEST_F(DeviceRun, ModelsReadFromAFolderEvaluateGenerateAndExportAlike) {
  train(config("run"), runtime(DeviceKind::cpu));
  const fs::path checkpoint = folder_ / "run" / "step-00000004";
  const ModelConfig model = read_folder_config(checkpoint);
  const auto outcome = [&](DeviceKind kind) {
    const Runtime where = runtime(kind);
    Session session(where, model, {.gradients = true, .max_positions = 40});
    read_weights(TensorFolder(checkpoint), session);
    MicroBatchBuffer buffer(session, 64);
    const ValidationSet data({folder_ / "valid"}, 16);
    std::string text = fmt::format(
        "{} ", evaluate(session, buffer, data, {.sequence_length = 16, .samples = 5, .micro_batch_size = 2}).loss);
    generate(session, std::vector<std::int32_t>{100, 101, 102}, {.max_tokens = 12}, {}, 40, [&](std::int32_t token) {
      text += fmt::format("{},", token);
      return true;
    });
    const fs::path out = folder_ / (kind == DeviceKind::cpu ? "cpu-model" : "device-model");
    fs::create_directories(out);
    write_model_folder(out, model, session.layout(), session);
    return text + test::read_bytes(out / "model.safetensors");
  };
  const std::string expected = outcome(DeviceKind::cpu);
  EXPECT_TRUE(outcome(DeviceKind::cuda) == expected);
}

TEST_F(DeviceRun, ANonFiniteGradientIsNamedOnTheDevice) {
  RunConfig wild = config("wild");
  wild.scheduler.max_lr = 1e30;
  wild.training.max_steps = 2;
  wild.training.validation_interval = 0;
  ::testing::internal::CaptureStderr();
  train(wild, runtime(DeviceKind::cuda));
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("is skipped: the gradient of model."), std::string::npos) << said;
}

TEST_F(DeviceRun, OutOfMemorySaysWhatIsInUseAndWhichSettingHelps) {
  const Runtime device = runtime(DeviceKind::cuda);
  dynamic_cast<GuardedDevice&>(*device.device).limit = 600'000;
  const std::string message = message_of<OutOfMemoryError>([&] { train(config("small"), device); });
  EXPECT_NE(message.find(" bytes wanted for activations; in use: weights 0.1 MB, gradients 0.1 MB"), std::string::npos)
      << message;
  EXPECT_NE(message.find("; a training.micro_batch_size below 2 takes less"), std::string::npos) << message;
  EXPECT_EQ(device.device->memory().describe(), "total 0.0 MB");

  dynamic_cast<GuardedDevice&>(*device.device).limit = 150'000;
  const std::string sooner = message_of<OutOfMemoryError>([&] { train(config("smaller"), device); });
  EXPECT_NE(sooner.find(" bytes wanted for moments; in use: weights 0.1 MB, gradients 0.1 MB"), std::string::npos)
      << sooner;
  EXPECT_NE(sooner.find("; the model and its optimizer do not fit; lathe plan shows"), std::string::npos) << sooner;
}

// bf16 weights: rounded from masters when filled and after each update; the masters come back from a checkpoint
// exactly.
TEST_F(DeviceRun, RoundsWeightsFromMastersThatACheckpointKeeps) {
  Runtime where = runtime(DeviceKind::cuda);
  where.dtype = DType::bf16;
  const ModelConfig model = read_model_config(folder_ / "config.json");
  Session session(where, model, {.gradients = true, .masters = true, .max_positions = 8});
  session.fill_weights([&](const std::string& name, const TensorView& host) {
    initialize_parameter(model, {name, host}, 0.3, 5);
  });
  const auto read = [&](const TensorView& tensor) {
    std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
    const HostCopy copy(session.device(), session.ops().stream, tensor);
    convert_elements(values.data(), DType::f32, copy.view().data, tensor.dtype, values.size());
    return values;
  };
  const auto expect_rounded = [&](const std::vector<float>& masters) {
    const std::vector<float> weights = read(session.weights());
    for (std::size_t i = 0; i < masters.size(); ++i) ASSERT_EQ(weights[i], static_cast<float>(bf16(masters[i]))) << i;
  };
  const std::vector<float> before = read(session.masters());
  expect_rounded(before);

  Optimizer optimizer({}, session.layout(), session.ops());
  session.device().copy(session.gradients(), session.masters(), session.ops().stream);
  optimizer.step(session.masters(), session.weights(), session.gradients(), 1.0, 1e-5);
  const std::vector<float> after = read(session.masters());
  EXPECT_NE(before, after);
  expect_rounded(after);

  optimizer.save(folder_.path(), session.masters());
  const SavedMasters saved(folder_.path());
  ASSERT_TRUE(saved.any());
  Session again(where, model, {.masters = true, .max_positions = 8});
  again.fill_weights([&](const std::string& name, const TensorView& host) { saved.read_into(name, host); });
  EXPECT_EQ(read(again.masters()), after);
  EXPECT_EQ(read(again.weights()), read(session.weights()));
  EXPECT_EQ(read_folder_dtype(session), "BF16");
}

// In bf16 the run follows fp32's, and one that was stopped goes on bit for bit: the masters were kept.
TEST_F(DeviceRun, InBf16FollowsFp32AndGoesOnBitForBit) {
  const auto run = [&](const std::string& name, DType dtype, std::int64_t steps, bool resume) {
    RunConfig settings = config(name);
    settings.training.max_steps = steps;
    settings.scheduler.max_lr = 3e-3;
    settings.resume = resume;
    Runtime where = runtime(DeviceKind::cuda);
    where.dtype = dtype;
    train(settings, where);
  };
  run("fp32", DType::f32, 20, false);
  run("whole", DType::bf16, 20, false);
  run("halves", DType::bf16, 10, false);
  run("halves", DType::bf16, 20, true);
  EXPECT_TRUE(results("halves", "step-00000020") == results("whole", "step-00000020"));
  const std::vector<double> expected = losses("fp32");
  const std::vector<double> found = losses("whole");
  ASSERT_EQ(expected.size(), 20U);
  ASSERT_EQ(found.size(), 20U);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 0.01 * expected[i]) << i;
  EXPECT_LT(found.back(), 0.9 * found.front());
  EXPECT_NE(found, expected);
}

using DeviceRunDeathTest = DeviceRun;
TEST_F(DeviceRunDeathTest, TheGuardHolds) {
  GuardedDevice device;
  const Buffer buffer(device, 64, "guarded");
  EXPECT_DEATH(static_cast<volatile char*>(buffer.data())[0] = 1, "");
}

TEST_F(DeviceRun, RecordingChangesNoStep) {
  const RunConfig settings = config("recorded");
  const RunInputs inputs = open_step_inputs(settings);
  EXPECT_FALSE(fs::exists(settings.checkpoint.directory));
  const Runtime plain = runtime(DeviceKind::cuda), recorded = runtime(DeviceKind::cuda);
  TrainingSteps plain_steps(settings, plain, inputs), recorded_steps(settings, recorded, inputs);
  WorkRecorder recorder(make_cpu_timeline());
  recorded.device->set_recorder(&recorder);
  std::vector<std::int64_t> calls;
  for (int step = 1; step <= 3; ++step) {
    const StepMetrics expected = plain_steps.run_step(), found = recorded_steps.run_step();
    EXPECT_EQ(found.step, step);
    EXPECT_EQ(found.cross_entropy_loss, expected.cross_entropy_loss);
    EXPECT_EQ(found.gradient_norm, expected.gradient_norm);
    calls.push_back(0);
    for (const WorkRecorder::Class& each : recorder.take()) calls.back() += each.calls;
  }
  EXPECT_GT(calls[0], 100);
  EXPECT_EQ(calls, std::vector<std::int64_t>(3, calls[0]));
}

}  // namespace
}  // namespace lathe::testing
