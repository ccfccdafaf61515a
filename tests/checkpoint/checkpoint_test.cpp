#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include "checkpoint/manifest.h"
#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

fs::path write_step(const fs::path& run, std::int64_t step, const std::string& content = "content") {
  return write_checkpoint(run, step, [&](const fs::path& folder) {
    write_bytes(folder / "config.json", "{}");
    write_bytes(folder / "model.safetensors", content);
  });
}

std::vector<std::int64_t> steps_of(const fs::path& run) {
  std::vector<std::int64_t> steps;
  for (const auto& folder : list_checkpoints(run)) steps.push_back(folder.step);
  return steps;
}

std::size_t entries_of(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

void no_skip(const std::string& name, const std::string& reason) { ADD_FAILURE() << name << ": " << reason; }

TEST(Checkpoint, WritesAWholeFolder) {
  const TemporaryFolder folder;
  const fs::path run = folder / "runs/a";
  EXPECT_TRUE(list_checkpoints(run).empty());
  EXPECT_EQ(newest_good_checkpoint(run, no_skip), std::nullopt);
  EXPECT_EQ(write_step(run, 100), run / "step-00000100");
  EXPECT_TRUE(verify_manifest(run / "step-00000100").empty());
  EXPECT_EQ(entries_of(run / "step-00000100"), 3U);
  EXPECT_EQ(entries_of(run), 1U);
  write_step(run, 20);
  write_step(run, 123456789);
  EXPECT_EQ(steps_of(run), (std::vector<std::int64_t>{20, 100, 123456789}));
  EXPECT_EQ(newest_good_checkpoint(run, no_skip)->path, run / "step-123456789");
}

TEST(Checkpoint, ListsOnlyItsOwnNames) {
  const TemporaryFolder folder;
  for (const char* name : {"step-00000007", "step-0000007", "step-000000007", "step--0000007", "step-0000000a",
                           ".tmp-step-00000008", "step-", "other"})
    fs::create_directory(folder / name);
  write_bytes(folder / "step-00000009", "a file");
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{7}));
}

TEST(Checkpoint, ReplacesFoldersOfTheSameStep) {
  const TemporaryFolder folder;
  const fs::path path = write_step(folder.path(), 5, "old");
  fs::remove(path / "manifest.json");
  fs::create_directories(folder / ".tmp-step-00000005/left/behind");
  write_step(folder.path(), 5, "new");
  EXPECT_EQ(read_bytes(path / "model.safetensors"), "new");
  EXPECT_TRUE(verify_manifest(path).empty());
  EXPECT_EQ(entries_of(folder.path()), 1U);
}

TEST(Checkpoint, AFailedWriterLeavesTheOldOne) {
  const TemporaryFolder folder;
  write_step(folder.path(), 5, "old");
  EXPECT_EQ(message_of<Error>([&] {
              write_checkpoint(folder.path(), 5, [](const fs::path& path) {
                write_bytes(path / "model.safetensors", "half");
                fail("disk full");
              });
            }),
            "disk full");
  EXPECT_EQ(read_bytes(folder / "step-00000005/model.safetensors"), "old");
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{5}));
  write_bytes(folder / "metrics.jsonl", "{}");
  remove_temporary_folders(folder.path());
  EXPECT_EQ(entries_of(folder.path()), 2U);
}

TEST(Checkpoint, TheNewestGoodOneNamesWhatItSkips) {
  const TemporaryFolder folder;
  for (const std::int64_t step : {10, 20, 30, 40}) write_step(folder.path(), step);
  fs::remove(folder / "step-00000040/manifest.json");
  write_bytes(folder / "step-00000030/model.safetensors", "contenT");
  std::vector<std::string> skipped;
  const auto newest = newest_good_checkpoint(folder.path(), [&](const std::string& name, const std::string& reason) {
    skipped.push_back(name + ": " + reason);
  });
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->step, 20);
  ASSERT_EQ(skipped.size(), 2U);
  EXPECT_EQ(skipped[0], "step-00000040: manifest.json: missing");
  EXPECT_TRUE(skipped[1].starts_with("step-00000030: model.safetensors: checksum ")) << skipped[1];
}

TEST(Prune, KeepsTheNewest) {
  const TemporaryFolder folder;
  for (const std::int64_t step : {10, 20, 30, 40}) write_step(folder.path(), step);
  prune_checkpoints(folder.path(), 4, 40);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{10, 20, 30, 40}));
  prune_checkpoints(folder.path(), 3, 40);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{20, 30, 40}));
  prune_checkpoints(folder.path(), 1);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{40}));
  EXPECT_EQ(entries_of(folder.path()), 1U);
  EXPECT_EQ(message_of<Error>([&] { prune_checkpoints(folder.path(), 0); }), "cannot keep 0 checkpoints: at least 1");
}

TEST(Prune, DamagedOnesAreNotCounted) {
  const TemporaryFolder folder;
  for (const std::int64_t step : {10, 20, 30, 40}) write_step(folder.path(), step);
  write_bytes(folder / "step-00000040/model.safetensors", "cut");
  fs::remove(folder / "step-00000020/manifest.json");
  prune_checkpoints(folder.path(), 2);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{10, 20, 30, 40}));
  prune_checkpoints(folder.path(), 1);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{30, 40}));
}

TEST(Prune, NeverDeletesTheNewestGoodOne) {
  const TemporaryFolder folder;
  for (const std::int64_t step : {10, 20, 30}) write_step(folder.path(), step);
  write_bytes(folder / "step-00000030/model.safetensors", "contenT");  // of the same size
  prune_checkpoints(folder.path(), 1);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{20, 30}));
  write_bytes(folder / "step-00000020/model.safetensors", "contenT");
  prune_checkpoints(folder.path(), 1);
  EXPECT_EQ(steps_of(folder.path()), (std::vector<std::int64_t>{20, 30}));
}

TEST(ResolveModelFolder, TakesAllThreeKinds) {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  const fs::path newer = write_step(run, 20);
  const fs::path older = write_step(run, 10);
  EXPECT_EQ(resolve_model_folder(run, no_skip).path, newer);
  EXPECT_EQ(resolve_model_folder(older, no_skip).path, older);
  EXPECT_EQ(resolve_model_folder(older, no_skip).kind, ModelFolderKind::checkpoint);
  write_bytes(newer / "config.json", "[]");
  int skipped = 0;
  EXPECT_EQ(resolve_model_folder(run, [&](const auto&, const auto&) { ++skipped; }).path, older);
  EXPECT_EQ(skipped, 1);
  EXPECT_EQ(resolve_model_folder(run).path, older);

  fs::create_directory(folder / "hf");
  write_bytes(folder / "hf/config.json", "{}");
  write_bytes(folder / "hf/model.safetensors.index.json", "{}");
  EXPECT_EQ(resolve_model_folder(folder / "hf", no_skip).kind, ModelFolderKind::hugging_face);
}

TEST(ResolveModelFolder, RefusesOthers) {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  const auto refusal = [&](const std::string& name) {
    return message_of([&] { resolve_model_folder(path + name, [](const auto&, const auto&) {}); });
  };
  EXPECT_EQ(refusal("/none"), path + "/none: no such folder");
  EXPECT_EQ(refusal(""), path +
                             ": no model: neither a checkpoint (manifest.json), nor a run's folder (step-*), nor a "
                             "Hugging Face folder (config.json with model.safetensors or "
                             "model.safetensors.index.json)");
  const fs::path damaged = write_step(folder.path(), 20);
  fs::remove(damaged / "manifest.json");
  EXPECT_EQ(refusal("/step-00000020"), damaged.string() + ": damaged checkpoint: manifest.json: missing");
  EXPECT_EQ(refusal("/step-00000020/"), damaged.string() + "/: damaged checkpoint: manifest.json: missing");
  EXPECT_EQ(refusal(""), path + ": none of its 1 checkpoints is whole");
  write_checkpoint(folder.path(), 30, [](const fs::path& made) { write_bytes(made / "state.json", "{}"); });
  EXPECT_EQ(refusal("/step-00000030"),
            path + "/step-00000030: no model in this checkpoint: config.json or safetensors are missing");
}

}  // namespace
}  // namespace lathe
