#include "data/tokenize_progress.h"

#include <sys/stat.h>

#include "core/error.h"
#include "core/file.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

fs::path progress_path(const fs::path& prefix) { return fs::path(prefix) += ".progress"; }
fs::path source_path(const fs::path& prefix) { return fs::path(prefix) += ".source.json"; }

// The file is the old one or the new one, whole, whenever the process is killed.
void replace_file(const fs::path& path, const std::string& content) {
  const fs::path beside = fs::path(path) += ".tmp";
  write_file_durably(beside, content);
  std::error_code error;
  fs::rename(beside, path, error);
  check(!error, "{}: cannot be renamed to {}: {}", beside.string(), path.string(), error.message());
  sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

std::int64_t size_or_none(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? -1 : static_cast<std::int64_t>(size);
}

std::optional<Json> load(const fs::path& path, const Json& source) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    Json json = Json::parse(read_text_file(path), path.string());
    const Json* found = json.find("source");
    if (found != nullptr && *found == source) return json;
  } catch (const Error&) {
    // A damaged file is as good as none: the work is done again.
  }
  return std::nullopt;
}

// -1 for what is missing or no count.
std::int64_t count_at(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  return value != nullptr && value->is_integer() ? value->integer() : -1;
}

}  // namespace

Json describe_source(const std::string& tokenizer_fingerprint, const std::vector<fs::path>& files) {
  Json list(Json::Array{});
  for (const fs::path& path : files) {
    struct stat status {};
    require(::stat(path.c_str(), &status) == 0, "{}: cannot be read", path.string());
    Json entry;
    entry.set("path", path.string());
    entry.set("bytes", static_cast<std::int64_t>(status.st_size));
    entry.set("modified_s", static_cast<std::int64_t>(status.st_mtim.tv_sec));
    entry.set("modified_ns", static_cast<std::int64_t>(status.st_mtim.tv_nsec));
    list.push_back(std::move(entry));
  }
  Json source;
  source.set("tokenizer", tokenizer_fingerprint);
  source.set("files", std::move(list));
  return source;
}

std::optional<TokenizeState> load_progress(const fs::path& prefix, const Json& source) {
  const auto json = load(progress_path(prefix), source);
  if (!json) return std::nullopt;
  TokenizeState state;
  state.written = {count_at(*json, "documents"), count_at(*json, "tokens")};
  const std::int64_t file = count_at(*json, "file");
  state.read.offset = count_at(*json, "offset");
  state.read.line = count_at(*json, "line");
  const auto files = static_cast<std::int64_t>(source.find("files")->array().size());
  if (state.written.documents < 0 || state.written.tokens < 0 || file < 0 || file > files || state.read.offset < 0 ||
      state.read.line < 0)
    return std::nullopt;
  state.read.file = static_cast<std::size_t>(file);
  const Json* renaming = json->find("renaming");
  state.renaming = renaming != nullptr && *renaming == Json(true);
  return state;
}

void save_progress(const fs::path& prefix, const Json& source, const TokenizeState& state) {
  Json json;
  json.set("documents", state.written.documents);
  json.set("tokens", state.written.tokens);
  json.set("file", static_cast<std::int64_t>(state.read.file));
  json.set("offset", state.read.offset);
  json.set("line", state.read.line);
  json.set("renaming", state.renaming);
  json.set("source", source);
  replace_file(progress_path(prefix), json.dump(1) + "\n");
}

void remove_progress(const fs::path& prefix) {
  std::error_code error;
  fs::remove(progress_path(prefix), error);
  fs::remove(progress_path(prefix) += ".tmp", error);
}

std::optional<TokenFileWriter::Position> find_complete(const fs::path& prefix, const Json& source) {
  const auto json = load(source_path(prefix), source);
  if (!json) return std::nullopt;
  const bool same = count_at(*json, "idx_bytes") > 0 && count_at(*json, "tokens") >= 0 &&
                    size_or_none(bin_path(prefix)) == count_at(*json, "bin_bytes") &&
                    size_or_none(idx_path(prefix)) == count_at(*json, "idx_bytes");
  if (!same) return std::nullopt;
  return TokenFileWriter::Position{count_at(*json, "documents"), count_at(*json, "tokens")};
}

void save_complete(const fs::path& prefix, const Json& source, TokenFileWriter::Position written) {
  Json json;
  json.set("documents", written.documents);
  json.set("tokens", written.tokens);
  json.set("bin_bytes", size_or_none(bin_path(prefix)));
  json.set("idx_bytes", size_or_none(idx_path(prefix)));
  json.set("source", source);
  replace_file(source_path(prefix), json.dump(1) + "\n");
}

}  // namespace lathe
