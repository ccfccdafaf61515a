#include "data/token_file_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/file.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

fs::path with_suffix(const fs::path& prefix, std::string_view suffix) { return fs::path(prefix) += suffix; }
fs::path bin_partial(const fs::path& prefix) { return with_suffix(prefix, ".bin.partial"); }
fs::path sizes_partial(const fs::path& prefix) { return with_suffix(prefix, ".sizes.partial"); }
fs::path idx_partial(const fs::path& prefix) { return with_suffix(prefix, ".idx.partial"); }

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

template <typename T>
std::string_view as_bytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

void rename_if_there(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error && error != std::errc::no_such_file_or_directory)
    fail("{}: cannot be renamed to {}: {}", from.string(), to.string(), error.message());
}

}  // namespace

// A file written through a buffer.
class TokenFileWriter::Output {
 public:
  explicit Output(fs::path path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    check(fd_ >= 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
    buffer_.reserve(kBufferBytes);
  }
  ~Output() { ::close(fd_); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // The lock is freed by the kernel when the process ends. A file that was renamed away meanwhile is no lock.
  void lock() {
    struct stat held {};
    struct stat named {};
    const bool locked = ::flock(fd_, LOCK_EX | LOCK_NB) == 0 && ::fstat(fd_, &held) == 0 &&
                        ::stat(path_.c_str(), &named) == 0 && held.st_ino == named.st_ino;
    require(locked, "{}: another process is writing it", path_.string());
  }

  std::int64_t size() const {
    struct stat status {};
    check(::fstat(fd_, &status) == 0, "{}: cannot be read: {}", path_.string(), std::strerror(errno));
    return status.st_size;
  }

  void cut(std::int64_t size) {
    check(::ftruncate(fd_, size) == 0 && ::lseek(fd_, size, SEEK_SET) == size, "{}: cannot be cut to {} bytes: {}",
          path_.string(), size, std::strerror(errno));
  }

  void write(std::string_view bytes) {
    if (buffer_.size() + bytes.size() > kBufferBytes) flush();
    if (bytes.size() > kBufferBytes)
      write_all(bytes);
    else
      buffer_.append(bytes);
  }

  void sync() {
    flush();
    check(::fsync(fd_) == 0, "{}: fsync failed: {}", path_.string(), std::strerror(errno));
  }

 private:
  void flush() {
    write_all(buffer_);
    buffer_.clear();
  }
  void write_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      check(count > 0, "{}: writing failed: {}", path_.string(), std::strerror(errno));
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  fs::path path_;
  int fd_ = -1;
  std::string buffer_;
};

TokenFileWriter::TokenFileWriter(fs::path prefix, TokenType type)
    : prefix_(std::move(prefix)), type_(type), bin_(std::make_unique<Output>(bin_partial(prefix_))) {
  check(type == TokenType::u16 || type == TokenType::i32, "token files are written as uint16 or int32, not {}",
        name_of(type));
  bin_->lock();
  sizes_ = std::make_unique<Output>(sizes_partial(prefix_));
}

TokenFileWriter::~TokenFileWriter() = default;

bool TokenFileWriter::start_at(Position position) {
  check(!started_, "a writer starts once");
  started_ = true;
  const bool there = bin_->size() >= position.tokens * size_of(type_) && sizes_->size() >= position.documents * 4;
  if (!there) position = {};
  bin_->cut(position.tokens * size_of(type_));
  sizes_->cut(position.documents * 4);
  position_ = position;
  return there;
}

void TokenFileWriter::write_u16(std::span<const std::int32_t> tokens) {
  std::array<std::uint16_t, 4096> packed;
  while (!tokens.empty()) {
    const std::size_t count = std::min(tokens.size(), packed.size());
    for (std::size_t i = 0; i < count; ++i) {
      check(tokens[i] >= 0 && tokens[i] <= 0xffff, "token id {} does not fit in uint16", tokens[i]);
      packed[i] = static_cast<std::uint16_t>(tokens[i]);
    }
    bin_->write({reinterpret_cast<const char*>(packed.data()), count * 2});
    tokens = tokens.subspan(count);
  }
}

void TokenFileWriter::append_document(std::span<const std::int32_t> tokens) {
  if (!started_) start_at({});
  require(tokens.size() <= std::numeric_limits<std::int32_t>::max(), "a document of {} tokens; at most {} fit",
          tokens.size(), std::numeric_limits<std::int32_t>::max());
  if (type_ == TokenType::u16)
    write_u16(tokens);
  else
    bin_->write({reinterpret_cast<const char*>(tokens.data()), tokens.size() * 4});
  sizes_->write(as_bytes(static_cast<std::int32_t>(tokens.size())));
  ++position_.documents;
  position_.tokens += static_cast<std::int64_t>(tokens.size());
}

TokenFileWriter::Position TokenFileWriter::sync() {
  if (!started_) start_at({});
  bin_->sync();
  sizes_->sync();
  return position_;
}

void TokenFileWriter::prepare_index() {
  sync();
  std::error_code error;
  fs::remove(idx_partial(prefix_), error);
  Output idx(idx_partial(prefix_));
  const std::int64_t documents = position_.documents;
  idx.write({"MMIDIDX\0\0", 9});
  idx.write(as_bytes(std::uint64_t{1}));
  idx.write(as_bytes(type_));
  idx.write(as_bytes(static_cast<std::uint64_t>(documents)));
  idx.write(as_bytes(static_cast<std::uint64_t>(documents) + 1));
  const MappedFile sizes(sizes_partial(prefix_));
  const auto bytes = sizes.bytes();
  check(static_cast<std::int64_t>(bytes.size()) == documents * 4, "{}: {} bytes, {} were written",
        sizes.path().string(), bytes.size(), documents * 4);
  idx.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::int64_t pointer = 0;
  for (std::int64_t i = 0; i < documents; ++i) {
    idx.write(as_bytes(pointer));
    std::int32_t size;
    std::memcpy(&size, bytes.data() + i * 4, 4);
    pointer += size * size_of(type_);
  }
  for (std::int64_t i = 0; i <= documents; ++i) idx.write(as_bytes(i));
  idx.sync();
}

void TokenFileWriter::finish_renames(const fs::path& prefix) {
  std::error_code error;
  // An index of earlier files must not stand beside the new tokens, not even for a moment.
  if (fs::exists(bin_partial(prefix))) fs::remove(idx_path(prefix), error);
  rename_if_there(bin_partial(prefix), bin_path(prefix));
  rename_if_there(idx_partial(prefix), idx_path(prefix));
  fs::remove(sizes_partial(prefix), error);
  sync_directory(folder_of(prefix));
}

void TokenFileWriter::discard(const fs::path& prefix) {
  std::error_code error;
  for (const auto& path : {bin_partial(prefix), sizes_partial(prefix), idx_partial(prefix)}) fs::remove(path, error);
}

}  // namespace lathe
