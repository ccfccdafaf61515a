// Writers killed at random moments: what is left is the old state or the new one.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "core/philox.h"
#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

constexpr int kFiles = 3;

void write_files(const fs::path& folder, std::int64_t number) {
  for (int i = 0; i < kFiles; ++i) {
    write_bytes(folder / fmt::format("part-{}", i), std::string(20'000, static_cast<char>('a' + number % 26)));
    write_bytes(folder / fmt::format("number-{}", i), std::to_string(number));
  }
}

// The number that all files of a folder agree on.
std::int64_t number_of(const fs::path& folder) {
  const std::string number = read_bytes(folder / "number-0");
  for (int i = 0; i < kFiles; ++i) {
    check(read_bytes(folder / fmt::format("number-{}", i)) == number, "{}: a mixture", folder.string());
    const char letter = static_cast<char>('a' + std::stoll(number) % 26);
    check(read_bytes(folder / fmt::format("part-{}", i)) == std::string(20'000, letter), "{}: mixed", folder.string());
  }
  return std::stoll(number);
}

constexpr std::uint64_t kRounds = 16;

// After how long to kill, so that kills fall all over the writing of a few checkpoints. A busy machine may take longer
// than the one write that was timed: after each kRounds twice as long.
useconds_t microseconds_until_kill(std::uint64_t of_a_write, std::uint64_t round, const Philox& random) {
  return static_cast<useconds_t>(random.below(round, 3 * of_a_write << round / kRounds));
}

// How long one checkpoint takes.
std::uint64_t microseconds_of_a_write() {
  const TemporaryFolder run;
  const auto begin = std::chrono::steady_clock::now();
  for (std::int64_t step = 1; step <= 3; ++step)
    write_checkpoint(run.path(), step, [&](const fs::path& folder) { write_files(folder, step); });
  const auto taken = std::chrono::steady_clock::now() - begin;
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(taken).count()) / 3;
}

// Runs `work` in a child process and kills it after `microseconds`.
void run_and_kill(useconds_t microseconds, const std::function<void()>& work) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      work();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  ::usleep(microseconds);
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself with status " << WEXITSTATUS(status);
}

TEST(CheckpointKill, NoStepIsEverHalfWritten) {
  const TemporaryFolder run;
  const Philox random(1);
  const std::uint64_t of_a_write = microseconds_of_a_write();
  std::int64_t last = 0;
  for (std::uint64_t round = 0; round < kRounds || last <= 2; ++round) {
    ASSERT_LT(round, 8 * kRounds) << "nothing is ever written";
    run_and_kill(microseconds_until_kill(of_a_write, round, random), [&] {
      remove_temporary_folders(run.path());
      for (std::int64_t step = last + 1;; ++step) {
        write_checkpoint(run.path(), step, [&](const fs::path& folder) { write_files(folder, step); });
        prune_checkpoints(run.path(), 2, step);
      }
    });
    const auto folders = list_checkpoints(run.path());
    for (const auto& folder : folders) {
      EXPECT_EQ(describe(verify_manifest(folder.path)), "whole");
      EXPECT_EQ(number_of(folder.path), folder.step);
    }
    ASSERT_TRUE(last == 0 || !folders.empty());
    if (folders.empty()) continue;
    EXPECT_GE(folders.back().step, last);
    last = folders.back().step;
  }
  prune_checkpoints(run.path(), 2);
  remove_temporary_folders(run.path());
  EXPECT_EQ(std::distance(fs::directory_iterator(run.path()), fs::directory_iterator()), 2);
}

TEST(CheckpointKill, AStepThatIsReplacedIsOldOrNew) {
  const TemporaryFolder run;
  const Philox random(2);
  const std::uint64_t of_a_write = microseconds_of_a_write();
  const auto write_number = [&](std::int64_t number) {
    write_checkpoint(run.path(), 7, [&](const fs::path& folder) { write_files(folder, number); });
  };
  std::int64_t last = 1;
  write_number(last);
  for (std::uint64_t round = 0; round < kRounds || last <= 2; ++round) {
    ASSERT_LT(round, 8 * kRounds) << "nothing is ever written";
    run_and_kill(microseconds_until_kill(of_a_write, round, random), [&] {
      for (std::int64_t number = last + 1;; ++number) write_number(number);
    });
    const auto newest = newest_good_checkpoint(run.path(), [](const std::string& name, const std::string& reason) {
      ADD_FAILURE() << name << ": " << reason;
    });
    ASSERT_TRUE(newest.has_value());
    EXPECT_GE(number_of(newest->path), last);
    last = number_of(newest->path);
  }
}

}  // namespace
}  // namespace lathe
