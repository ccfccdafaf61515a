// A result in one file, which is there whole or not at all.
#pragma once

#include <filesystem>
#include <span>

#include "core/tensor_view.h"

namespace lathe {

// Throws InputError unless a file can be made at `path` (or replaced there). Makes nothing.
void require_output_file(const std::filesystem::path& path);

// Writes beside `path` and renames.
void write_tensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors);

}  // namespace lathe
