// manifest.json: the size and the checksum of every file of a folder. A folder is whole if all of them match.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lathe {

inline constexpr const char* kManifestName = "manifest.json";

// Hashes every file below `folder`, fsyncs each file and folder, and writes the manifest durably. Throws Error.
void write_manifest(const std::filesystem::path& folder);

struct BadFile {
  std::string name;  // relative to the folder
  std::string reason;
};

// How much of a folder is looked at: `sizes` sees what is missing or cut short, `checksums` every changed byte.
enum class VerifyDepth { sizes, checksums };

// The files that do not match, sorted by name; empty: the folder is whole. A manifest that is missing or malformed is
// itself the bad file. Files that the manifest does not list are not looked at.
std::vector<BadFile> verify_manifest(const std::filesystem::path& folder, VerifyDepth depth = VerifyDepth::checksums);

// "model.safetensors: ..., and 2 more files", for one line.
std::string describe(const std::vector<BadFile>& bad_files);

}  // namespace lathe
