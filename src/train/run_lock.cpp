#include "train/run_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace {

// The pid in the lock file; 0 if there is none, or none of a process that lives.
pid_t read_owner(int fd) {
  std::array<char, 32> text{};
  const ssize_t count = ::pread(fd, text.data(), text.size(), 0);
  pid_t pid = 0;
  if (count <= 0 || std::from_chars(text.data(), text.data() + count, pid).ec != std::errc() || pid <= 0) return 0;
  return ::kill(pid, 0) == 0 || errno == EPERM ? pid : 0;
}

// The owner writes its pid just after it has the lock: for that moment the file holds none, or a dead one's.
pid_t wait_for_owner(int fd) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    if (const pid_t pid = read_owner(fd); pid != 0) return pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return 0;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / ".lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(fd >= 0, "{}: cannot be written: {}", path.string(), std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const pid_t owner = error == EWOULDBLOCK ? wait_for_owner(fd) : 0;
    ::close(fd);
    require(error == EWOULDBLOCK, "{}: cannot be locked: {}", path.string(), std::strerror(error));
    if (owner == 0) refuse("{}: in use by another process", folder.string());
    refuse("{}: in use by process {}", folder.string(), owner);
  }
  fd_ = fd;
  const std::string pid = std::to_string(::getpid()) + "\n";
  const bool written =
      ::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, pid.data(), pid.size(), 0) == static_cast<ssize_t>(pid.size());
  if (written) return;
  const int error = errno;
  ::close(std::exchange(fd_, -1));
  fail("{}: writing failed: {}", path.string(), std::strerror(error));
}

RunLock::~RunLock() {
  if (fd_ < 0) return;
  // Empty, so that a later owner's first moment shows no stale pid. The file stays: removing it would let two
  // processes lock two files of one name.
  [[maybe_unused]] const int ignored = ::ftruncate(fd_, 0);
  ::close(fd_);
}

RunLock::RunLock(RunLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

}  // namespace lathe
