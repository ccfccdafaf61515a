// One process a run's folder.
#pragma once

#include <filesystem>

namespace lathe {

// Holds `folder/.lock` until destroyed; the kernel frees it when the process ends in any way. Move-only.
class RunLock {
 public:
  // The folder must exist. Throws InputError if another process holds it, naming that process, or if the lock file
  // cannot be made.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;

 private:
  int fd_ = -1;
};

}  // namespace lathe
