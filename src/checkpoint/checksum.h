#pragma once

#include <cstdint>
#include <filesystem>

namespace lathe {

struct FileChecksum {
  std::uint64_t bytes = 0;
  std::uint64_t xxh3 = 0;  // XXH3, 64 bits, seed 0
};

// Reads the file as a stream; throws Error naming it and the system's reason.
FileChecksum checksum_of(const std::filesystem::path& path);

}  // namespace lathe
