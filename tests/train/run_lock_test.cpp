#include "train/run_lock.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

// A process that holds the lock of a folder until it is killed.
class Holder {
 public:
  explicit Holder(const std::filesystem::path& folder) {
    int ready[2] = {-1, -1};
    check(::pipe(ready) == 0, "no pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      const RunLock lock(folder);
      if (::write(ready[1], "x", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    ::close(ready[1]);
    char letter = 0;
    check(pid_ > 0 && ::read(ready[0], &letter, 1) == 1, "the child did not get the lock");
    ::close(ready[0]);
  }
  ~Holder() { kill(); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  pid_t pid() const { return pid_; }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
};

TEST(RunLock, NamesTheProcessThatHoldsIt) {
  const TemporaryFolder folder;
  Holder holder(folder.path());
  EXPECT_EQ(message_of([&] { RunLock lock(folder.path()); }),
            fmt::format("{}: in use by process {}", folder.path().string(), holder.pid()));
  EXPECT_EQ(read_bytes(folder / ".lock"), fmt::format("{}\n", holder.pid()));
}

TEST(RunLock, AKilledProcessFreesIt) {
  const TemporaryFolder folder;
  Holder holder(folder.path());
  holder.kill();
  const RunLock lock(folder.path());
  EXPECT_EQ(read_bytes(folder / ".lock"), fmt::format("{}\n", ::getpid()));
}

TEST(RunLock, IsFreeAfterItsScopeAndAfterAMove) {
  const TemporaryFolder folder;
  std::optional<RunLock> first(folder.path());
  RunLock second(std::move(*first));
  first.reset();
  EXPECT_EQ(message_of([&] { RunLock lock(folder.path()); }),
            fmt::format("{}: in use by process {}", folder.path().string(), ::getpid()));
  { const RunLock last(std::move(second)); }
  EXPECT_EQ(read_bytes(folder / ".lock"), "");
  const RunLock again(folder.path());
}

TEST(RunLock, IgnoresWhatADeadProcessLeft) {
  const TemporaryFolder folder;
  write_bytes(folder / ".lock", "999999999 and a long line of something else\n");
  const RunLock lock(folder.path());
  EXPECT_EQ(read_bytes(folder / ".lock"), fmt::format("{}\n", ::getpid()));
}

TEST(RunLock, MakesNoFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { RunLock lock(folder / "none"); }),
            (folder / "none/.lock").string() + ": cannot be written: No such file or directory");
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
}

}  // namespace
}  // namespace lathe
