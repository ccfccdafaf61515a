#include "checkpoint/manifest.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>
#include <thread>

#include "checkpoint/checksum.h"
#include "core/checked.h"
#include "core/file.h"
#include "core/json.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxManifestBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxThreads = 8;  // a disk is the limit long before

struct ListedFile {
  std::string name;
  FileChecksum checksum;
};

// Runs work(i) for all i < count on a few threads; rethrows the exception of the lowest i.
void run_parallel(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::vector<std::exception_ptr> errors(count);
  std::atomic<std::size_t> next{0};
  const auto worker = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    const std::size_t processors = std::max<std::size_t>(std::thread::hardware_concurrency(), 1);
    for (std::size_t i = 1; i < std::min({count, processors, kMaxThreads}); ++i) threads.emplace_back(worker);
    worker();
  }
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  check(synced, "{}: fsync failed: {}", path.string(), std::strerror(error));
}

// The 16 hex digits that the manifest holds; none for another text.
std::optional<std::uint64_t> parse_hex(const std::string& text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, 16);
  if (text.size() != 16 || result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

bool stays_inside(const fs::path& name) {
  return !name.empty() && name.is_relative() && name.lexically_normal() == name && *name.begin() != "..";
}

ListedFile parse_entry(const Json::Member& member) {
  const auto& [name, entry] = member;
  require(stays_inside(name), "{} is not a file inside the folder", Json(name).dump());
  const Json* size = entry.find("size");
  const Json* checksum = entry.find("xxh3");
  require(size != nullptr && size->is_integer() && size->integer() >= 0, "no valid size for {}", name);
  const auto value = checksum != nullptr && checksum->is_string() ? parse_hex(checksum->string()) : std::nullopt;
  require(value.has_value(), "no valid xxh3 checksum for {}", name);
  return {name, {static_cast<std::uint64_t>(size->integer()), *value}};
}

// Throws InputError saying what is wrong with the manifest.
std::vector<ListedFile> read_manifest(const fs::path& folder) {
  const Json manifest = Json::parse(read_text_file(folder / kManifestName, kMaxManifestBytes), "the manifest");
  const Json* files = manifest.find("files");
  require(files != nullptr && files->is_object(), "no object \"files\"");
  std::vector<ListedFile> listed;
  for (const auto& member : files->object()) listed.push_back(parse_entry(member));
  require(!listed.empty(), "it lists no files");
  std::ranges::sort(listed, {}, &ListedFile::name);
  return listed;
}

// What is wrong with a file; empty if nothing is.
std::string judge(const fs::path& path, const FileChecksum& expected, VerifyDepth depth) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return "missing";
  if (error) return error.message();
  if (!fs::is_regular_file(status)) return "not a regular file";
  const auto size = fs::file_size(path, error);
  if (error) return error.message();
  if (size != expected.bytes) return fmt::format("size {}, the manifest says {}", size, expected.bytes);
  if (depth == VerifyDepth::sizes) return {};
  const FileChecksum found = checksum_of(path);
  if (found.xxh3 == expected.xxh3) return {};
  return fmt::format("checksum {:016x}, the manifest says {:016x}", found.xxh3, expected.xxh3);
}

}  // namespace

void write_manifest(const fs::path& folder) {
  std::vector<fs::path> files;
  std::vector<fs::path> folders{folder};
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) folders.push_back(entry.path());
    if (entry.is_regular_file() && entry.path() != folder / kManifestName) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::vector<FileChecksum> checksums(files.size());
  run_parallel(files.size(), [&](std::size_t i) {
    checksums[i] = checksum_of(files[i]);
    sync_file(files[i]);
  });

  Json::Object listed;
  for (std::size_t i = 0; i < files.size(); ++i) {
    Json entry;
    entry.set("size", narrow<std::int64_t>(checksums[i].bytes));
    entry.set("xxh3", fmt::format("{:016x}", checksums[i].xxh3));
    listed.push_back({files[i].lexically_relative(folder).string(), std::move(entry)});
  }
  Json manifest;
  manifest.set("version", 1);
  manifest.set("files", std::move(listed));
  write_file_durably(folder / kManifestName, manifest.dump(2) + "\n");
  for (const fs::path& path : folders) sync_directory(path);
}

std::vector<BadFile> verify_manifest(const fs::path& folder, VerifyDepth depth) {
  std::vector<ListedFile> listed;
  std::error_code error_code;
  if (fs::status(folder / kManifestName, error_code).type() == fs::file_type::not_found)
    return {{kManifestName, "missing"}};
  try {
    listed = read_manifest(folder);
  } catch (const Error& error) {
    return {{kManifestName, fmt::format("malformed: {}", error.what())}};
  }
  std::vector<std::string> reasons(listed.size());
  run_parallel(listed.size(), [&](std::size_t i) {
    try {
      reasons[i] = judge(folder / listed[i].name, listed[i].checksum, depth);
    } catch (const Error& error) {
      reasons[i] = error.what();
    }
  });
  std::vector<BadFile> bad;
  for (std::size_t i = 0; i < listed.size(); ++i)
    if (!reasons[i].empty()) bad.push_back({listed[i].name, reasons[i]});
  return bad;
}

std::string describe(const std::vector<BadFile>& bad_files) {
  if (bad_files.empty()) return "whole";
  std::string text = fmt::format("{}: {}", bad_files[0].name, bad_files[0].reason);
  if (bad_files.size() > 1)
    text += fmt::format(" (and {} more bad file{})", bad_files.size() - 1, bad_files.size() == 2 ? "" : "s");
  return text;
}

}  // namespace lathe
