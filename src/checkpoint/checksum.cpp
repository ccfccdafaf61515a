#include "checkpoint/checksum.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"

namespace lathe {

FileChecksum checksum_of(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(fd >= 0, "{}: cannot be read: {}", path.string(), std::strerror(errno));
  const auto close = [](const int* open_fd) { ::close(*open_fd); };
  const std::unique_ptr<const int, decltype(close)> closer(&fd, close);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  check(state != nullptr, "{}: no memory for the checksum", path.string());
  XXH3_64bits_reset(state.get());
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  FileChecksum result;
  while (true) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    check(count >= 0, "{}: cannot be read: {}", path.string(), std::strerror(errno));
    if (count == 0) break;
    XXH3_64bits_update(state.get(), buffer.data(), static_cast<std::size_t>(count));
    result.bytes += static_cast<std::uint64_t>(count);
  }
  result.xxh3 = XXH3_64bits_digest(state.get());
  return result;
}

}  // namespace lathe
