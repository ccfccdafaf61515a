#include "lathe/output_file.h"

#include <unistd.h>

#include <system_error>

#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/file.h"

namespace lathe {
namespace fs = std::filesystem;

void require_output_file(const fs::path& path) {
  std::error_code ignored;
  require(path.has_filename() && !fs::is_directory(path, ignored), "{}: is a folder, expected a file to write",
          path.string());
  const fs::path folder = fs::absolute(path).parent_path();
  require(fs::is_directory(folder, ignored), "{}: cannot be written: {} is no folder", path.string(), folder.string());
  require_writable_directory(folder);
}

void write_tensors(const fs::path& path, std::span<const NamedTensor> tensors) {
  fs::path temporary = path;
  temporary += fmt::format(".tmp-{}", ::getpid());
  try {
    write_safetensors(temporary, tensors);
    fs::rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace lathe
