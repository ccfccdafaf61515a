#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::size_t regular_file_size(int fd, const fs::path& path) {
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) refuse("{}: cannot be read: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) refuse("{}: not a regular file", path.string());
  return static_cast<std::size_t>(status.st_size);
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);  // a pipe is refused, not waited for
  size_ = regular_file_size(file.get(), path);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail("{}: cannot be mapped ({} bytes): {}", path.string(), size_, std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::string read_text_file(const fs::path& path, std::size_t max_bytes) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  const std::size_t size = regular_file_size(file.get(), path);
  require(size <= max_bytes, "{}: {} bytes, at most {} are read", path.string(), size, max_bytes);
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(file.get(), text.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    check(count > 0, "{}: read {} of {} bytes: {}", path.string(), done, size,
          count == 0 ? "the file became shorter" : std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
  return text;
}

void write_file_durably(const fs::path& path, std::string_view content) {
  const Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC);
  check(file.get() >= 0, "{}: cannot be written: {}", path.string(), std::strerror(errno));
  while (!content.empty()) {
    const ssize_t count = ::write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    check(count >= 0, "{}: writing failed: {}", path.string(), std::strerror(errno));
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  check(::fsync(file.get()) == 0, "{}: fsync failed: {}", path.string(), std::strerror(errno));
}

void sync_directory(const fs::path& path) {
  const Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  check(folder.get() >= 0 && ::fsync(folder.get()) == 0, "{}: fsync failed: {}", path.string(), std::strerror(errno));
}

void require_writable_directory(const fs::path& path) {
  std::error_code ignored;
  fs::path nearest = fs::absolute(path).lexically_normal();
  while (!fs::exists(fs::symlink_status(nearest, ignored))) {
    const std::size_t length = nearest.filename().string().size();
    require(length <= NAME_MAX, "{}: cannot be made: a name of {} bytes, at most {}", path.string(), length, NAME_MAX);
    nearest = nearest.parent_path();
  }
  require(fs::is_directory(nearest, ignored), "{}: cannot be made: {} is not a folder", path.string(),
          nearest.string());
  // Permissions alone do not tell: file systems may be read-only or virtual, and root passes every check.
  std::string probe = (nearest / ".lathe-XXXXXX").string();
  require(::mkdtemp(probe.data()) != nullptr, "{}: cannot be written: {}: {}", path.string(), nearest.string(),
          std::strerror(errno));
  ::rmdir(probe.c_str());
}

void require_writable_file(const fs::path& path) {
  require(!fs::is_directory(path), "{}: is a folder, expected the name of a file", path.string());
  require_writable_directory(fs::absolute(path).parent_path());
}

}  // namespace lathe
