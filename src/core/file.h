// Files as the rest needs them: mapped for reading, written so that they survive a crash.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lathe {

// A regular file mapped read-only. Move-only.
class MappedFile {
 public:
  // Throws InputError naming the path if it is missing, unreadable or no regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// The whole of a text file; throws InputError if it is missing or larger than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 30);

// Writes and fsyncs a new file; throws Error naming the path and the system's reason.
void write_file_durably(const std::filesystem::path& path, std::string_view content);

// Makes renames and new names in a folder durable.
void sync_directory(const std::filesystem::path& path);

// Throws InputError unless files can be made in `path`; a folder that is missing is judged by its nearest parent.
// Leaves nothing there.
void require_writable_directory(const std::filesystem::path& path);

// Throws InputError unless a file of that name can be written, by the same look at its folder.
void require_writable_file(const std::filesystem::path& path);

}  // namespace lathe
