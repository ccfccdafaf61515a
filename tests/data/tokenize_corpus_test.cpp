#include "data/tokenize_corpus.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <zstd.h>

#include <cstdlib>
#include <thread>

#include "core/json.h"
#include "core/philox.h"
#include "data/data_testing.h"
#include "data/tokenizer.h"

extern char** environ;

namespace lathe {
namespace {

const std::string kBpe = (std::filesystem::path(LATHE_GOLDEN_DIR) / "tokenizer" / "deepseek").string();

std::string compress(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

// Lines of varied length and language, with the odd blank one.
std::string make_lines(std::uint64_t seed, int count, std::vector<std::string>* texts = nullptr) {
  const char* words[] = {"the ",   "beginning ", "人工 ",       "智能", "naïve ",
                         "12345 ", "\n",         "\"quoted\" ", "🙂", "they'll "};
  const Philox random(seed);
  std::string lines;
  std::uint64_t counter = 0;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (auto n = random.below(counter++, 60); n > 0; --n) text += words[random.below(counter++, 10)];
    Json json;
    json.set("id", std::int64_t{i});
    json.set("text", text);
    lines += json.dump() + (i % 3 == 0 ? "\r\n" : "\n") + (i % 7 == 0 ? " \n" : "");
    if (texts != nullptr) texts->push_back(text);
  }
  return lines;
}

TokenizeJob job(const TemporaryFolder& folder, const std::string& name, std::vector<std::filesystem::path> files) {
  TokenizeJob made;
  made.tokenizer = kBpe;
  made.out = folder / name;
  made.files = std::move(files);
  made.batch_bytes = 5000;
  return made;
}

void expect_same_files(const std::filesystem::path& a, const std::filesystem::path& b) {
  EXPECT_TRUE(read_bytes(bin_path(a)) == read_bytes(bin_path(b)));
  EXPECT_TRUE(read_bytes(idx_path(a)) == read_bytes(idx_path(b)));
}

TEST(TokenizeCorpus, EveryKindOfFileInOrder) {
  const TemporaryFolder folder;
  std::vector<std::string> texts{"A plain\r\ntext, 人工.\n"};
  write_bytes(folder / "a.txt", texts[0]);
  write_bytes(folder / "b.jsonl", make_lines(1, 100, &texts) + R"({"text": "no line end"})");
  texts.emplace_back("no line end");
  write_bytes(folder / "empty.jsonl", "");
  write_bytes(folder / "empty.txt", "");
  texts.emplace_back();
  const std::string first_frame = compress(make_lines(2, 300, &texts));
  write_bytes(folder / "c.jsonl.zst", first_frame + compress(make_lines(3, 50, &texts)));
  const auto tokenizer = load_tokenizer(kBpe);
  std::vector<std::vector<std::int32_t>> documents;
  for (const auto& text : texts) {
    documents.push_back(tokenizer->encode(text));
    documents.back().push_back(tokenizer->end_of_document());
  }
  write_documents(folder / "expected", documents);
  auto made =
      job(folder, "new/out",
          {folder / "a.txt", folder / "b.jsonl", folder / "empty.jsonl", folder / "empty.txt", folder / "c.jsonl.zst"});
  for (const int threads : {1, 4}) {
    omp_set_num_threads(threads);
    std::filesystem::remove_all(folder / "new");
    const auto result = tokenize_corpus(made);
    EXPECT_EQ(result.documents, static_cast<std::int64_t>(texts.size()));
    EXPECT_FALSE(result.was_complete);
    expect_same_files(made.out, folder / "expected");
  }
  // Only the record stays beside the two.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "new"), {}), 3);
}

TEST(TokenizeCorpus, BytesKeepAnyBytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.txt", "x\xFFz");
  auto made = job(folder, "out", {folder / "a.txt"});
  made.tokenizer = "bytes";
  tokenize_corpus(made);
  write_documents(folder / "expected", {{'x', 0xFF, 'z', 257}});
  expect_same_files(made.out, folder / "expected");
}

TEST(TokenizeCorpus, DoesNothingTwice) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.jsonl", make_lines(1, 20));
  auto made = job(folder, "out", {folder / "a.jsonl"});
  const auto first = tokenize_corpus(made);
  const auto written = std::filesystem::last_write_time(folder / "out.bin");
  const auto second = tokenize_corpus(made);
  EXPECT_TRUE(second.was_complete);
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.documents, 20);
  EXPECT_EQ(std::filesystem::last_write_time(folder / "out.bin"), written);
  // Another tokenizer, another text, or outputs that are not the recorded ones: done again.
  made.tokenizer = "bytes";
  EXPECT_FALSE(tokenize_corpus(made).was_complete);
  write_bytes(folder / "a.jsonl", make_lines(1, 21));
  EXPECT_EQ(tokenize_corpus(made).documents, 21);
  std::filesystem::resize_file(folder / "out.bin", 2);
  EXPECT_FALSE(tokenize_corpus(made).was_complete);
  EXPECT_EQ(TokenFile(made.out).documents(), 21);
}

TEST(TokenizeCorpus, RefusesBeforeItWrites) {
  const TemporaryFolder folder;
  const auto refuse_file = [&](std::string_view name, std::string_view content,
                               std::initializer_list<std::string_view> parts) {
    std::filesystem::create_directory(folder / "in");
    write_bytes(folder / "in/good.jsonl", make_lines(1, 200));
    write_bytes(folder / "in" / name, content);
    auto made = job(folder, "out/x", {folder / "in/good.jsonl", folder / "in" / name});
    expect_refused([&] { tokenize_corpus(made); }, parts);
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  };
  const std::string good = R"({"text": "a"})"
                           "\n";
  refuse_file("a.jsonl", good + "\n{\"text\": \"b\"\n", {"a.jsonl: line 3", "not valid JSON"});
  refuse_file("a.jsonl", good + R"({"txt": "b"})", {"a.jsonl: line 2", "\"text\" is missing"});
  refuse_file("a.jsonl", good + R"({"text": 5})", {"a.jsonl: line 2", "a whole number"});
  refuse_file("a.jsonl", good + "[1]", {"a.jsonl: line 2", "a list"});
  refuse_file("a.jsonl", good + "{\"text\": \"\xFF\"}", {"a.jsonl: line 2", "not valid JSON"});
  refuse_file("a.jsonl", good + R"({"text": "\ud800"})", {"a.jsonl: line 2", "not valid JSON"});
  refuse_file("a.txt", "ab\xC3", {"a.txt", "not UTF-8 at byte 2"});
  refuse_file("a.jsonl.zst", "no zstd data", {"a.jsonl.zst", "zstd"});
  const std::string packed = compress(make_lines(2, 100));
  refuse_file("a.jsonl.zst", packed.substr(0, packed.size() - 1), {"a.jsonl.zst", "too early"});
  refuse_file("a.jsonl.zst", compress(good + "oops"), {"a.jsonl.zst: line 2"});
  refuse_file("a.csv", "x", {"a.csv", ".jsonl"});
  auto made = job(folder, "out/x", {folder / "none.txt"});
  expect_refused([&] { tokenize_corpus(made); }, {"none.txt", "not found"});
  made.files = {folder / "in/good.jsonl"};
  made.tokenizer = "nowhere";
  expect_refused([&] { tokenize_corpus(made); }, {"nowhere"});
  made.tokenizer = "bytes";
  made.out = folder / "in/good.jsonl/x";
  expect_refused([&] { tokenize_corpus(made); }, {"not a folder"});
  made.out = folder.path().string() + "/";
  expect_refused([&] { tokenize_corpus(made); }, {"--out"});
  made.files.clear();
  made.out = folder / "x";
  expect_refused([&] { tokenize_corpus(made); }, {"no text file"});
}

// What the killed processes of the next test run.
TEST(TokenizeCorpusChild, DISABLED_Run) {
  TokenizeJob made;
  made.tokenizer = kBpe;
  made.out = std::getenv("LATHE_TEST_OUT");
  made.files = {std::filesystem::path(std::getenv("LATHE_TEST_IN")) / "a.jsonl",
                std::filesystem::path(std::getenv("LATHE_TEST_IN")) / "b.jsonl.zst"};
  made.batch_bytes = 20'000;
  made.save_interval = std::chrono::milliseconds(5);
  tokenize_corpus(made);
}

// True if the child ended by itself within the time, false if it was killed.
bool run_child(const TemporaryFolder& folder, std::chrono::microseconds time) {
  setenv("LATHE_TEST_IN", folder.path().c_str(), 1);
  setenv("OMP_WAIT_POLICY", "passive", 1);
  setenv("LATHE_TEST_OUT", (folder / "out").c_str(), 1);
  std::string program = std::filesystem::read_symlink("/proc/self/exe");
  std::string filter = "--gtest_filter=TokenizeCorpusChild.*";
  std::string disabled = "--gtest_also_run_disabled_tests";
  std::string brief = "--gtest_brief=1";
  char* arguments[] = {program.data(), filter.data(), disabled.data(), brief.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  check(posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environ) == 0, "cannot start {}", program);
  posix_spawn_file_actions_destroy(&actions);
  std::this_thread::sleep_for(time);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFEXITED(status);
}

TEST(TokenizeCorpus, KilledAtAnyMomentItGoesOn) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.jsonl", make_lines(1, 1500));
  write_bytes(folder / "b.jsonl.zst", compress(make_lines(2, 1500)));
  auto whole = job(folder, "whole", {folder / "a.jsonl", folder / "b.jsonl.zst"});
  tokenize_corpus(whole);
  const Philox random(9);
  int resumed = 0;
  for (std::uint64_t round = 0; round < 2; ++round) {
    std::chrono::microseconds time(20'000);
    for (std::uint64_t attempt = 0; attempt < 60; ++attempt) {
      time += time / 5 + std::chrono::microseconds(random.below(round * 100 + attempt, 20'000));
      const bool ended = run_child(folder, time);
      if (ended) break;
      const std::string progress = read_bytes(folder / "out.progress");
      if (!progress.empty() && Json::parse(progress, "progress").find("documents")->integer() > 0) ++resumed;
    }
    auto last = job(folder, "out", {folder / "a.jsonl", folder / "b.jsonl.zst"});
    EXPECT_EQ(tokenize_corpus(last).documents, 3000);
    expect_same_files(folder / "out", folder / "whole");
    for (const auto* suffix : {".bin.partial", ".idx.partial", ".sizes.partial", ".progress"})
      EXPECT_FALSE(std::filesystem::exists(folder / ("out" + std::string(suffix)))) << suffix;
    for (const auto* suffix : {".bin", ".idx", ".source.json"})
      std::filesystem::remove(folder / ("out" + std::string(suffix)));
  }
  EXPECT_GT(resumed, 0);
}

// Other text under the same name: what was done of the old one is thrown away.
TEST(TokenizeCorpus, StartsOverWhenTheTextChanged) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.jsonl", make_lines(1, 1500));
  write_bytes(folder / "b.jsonl.zst", compress(make_lines(2, 1500)));
  bool resumable = false;
  for (int milliseconds = 20; !resumable && milliseconds < 2000; milliseconds += milliseconds / 4) {
    run_child(folder, std::chrono::milliseconds(milliseconds));
    const std::string progress = read_bytes(folder / "out.progress");
    resumable = !progress.empty() && Json::parse(progress, "progress").find("documents")->integer() > 0;
  }
  ASSERT_TRUE(resumable);
  write_bytes(folder / "a.jsonl", make_lines(3, 1500));
  const auto result = tokenize_corpus(job(folder, "out", {folder / "a.jsonl", folder / "b.jsonl.zst"}));
  EXPECT_EQ(result.resumed_documents, 0);
  tokenize_corpus(job(folder, "whole", {folder / "a.jsonl", folder / "b.jsonl.zst"}));
  expect_same_files(folder / "out", folder / "whole");
}

}  // namespace
}  // namespace lathe
