#include "data/corpus_reader.h"

#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxLineBytes = std::size_t{1} << 30;
// A document's number of tokens is an int32, one of them its end.
constexpr std::int64_t kMaxTextBytes = std::numeric_limits<std::int32_t>::max() - 1;
// Frames written with `zstd --long=31` can be read; the memory is taken only for those.
constexpr int kMaxWindowLog = 31;

bool is_text(const fs::path& path) { return path.extension() == ".txt"; }
bool is_compressed(const fs::path& path) { return path.string().ends_with(".jsonl.zst"); }
bool is_lines(const fs::path& path) { return path.extension() == ".jsonl" || is_compressed(path); }

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// The bytes of a file, decompressed if need be, a chunk at a time.
class ByteSource {
 public:
  explicit ByteSource(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    require(file_ != nullptr, "{}: cannot be read", path.string());
    if (!is_compressed(path)) return;
    zstd_.reset(ZSTD_createDCtx());
    check(zstd_ != nullptr, "no memory to decompress {}", path.string());
    ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  }

  std::int64_t file_bytes() const { return file_bytes_; }

  // Appends a chunk; false at the end.
  bool append_chunk(std::string& out) { return zstd_ == nullptr ? read_plain(out) : decompress(out); }

 private:
  bool read_plain(std::string& out) {
    const std::size_t before = out.size();
    out.resize(before + kChunkBytes);
    const std::size_t count = std::fread(out.data() + before, 1, kChunkBytes, file_.get());
    check(count > 0 || std::ferror(file_.get()) == 0, "{}: reading failed", path_.string());
    out.resize(before + count);
    file_bytes_ += static_cast<std::int64_t>(count);
    return count > 0;
  }

  bool decompress(std::string& out) {
    const std::size_t before = out.size();
    out.resize(before + kChunkBytes);
    ZSTD_outBuffer target{out.data() + before, kChunkBytes, 0};
    while (target.pos == 0) {
      if (source_.pos == source_.size && !is_full_) {
        packed_.clear();
        const bool more = read_plain(packed_);
        source_ = {packed_.data(), packed_.size(), 0};
        if (!more) {
          require(frame_is_whole_, "{}: the compressed data ends too early", path_.string());
          break;
        }
      }
      const std::size_t left = ZSTD_decompressStream(zstd_.get(), &target, &source_);
      require(ZSTD_isError(left) == 0, "{}: no valid zstd data: {}", path_.string(), ZSTD_getErrorName(left));
      frame_is_whole_ = left == 0;
      is_full_ = left != 0 && target.pos == target.size;  // there may be more to flush without new input
    }
    out.resize(before + target.pos);
    return target.pos > 0;
  }

  fs::path path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::unique_ptr<ZSTD_DCtx, FreeZstd> zstd_;
  std::string packed_;
  ZSTD_inBuffer source_{nullptr, 0, 0};
  bool frame_is_whole_ = true;
  bool is_full_ = false;
  std::int64_t file_bytes_ = 0;
};

}  // namespace

// Lines without their ends, and how many bytes they took.
class CorpusReader::LineSource {
 public:
  explicit LineSource(const fs::path& path) : path_(path), bytes_(path) {}

  std::int64_t file_bytes() const { return bytes_.file_bytes(); }

  // False at the end. `taken` counts the line's end too.
  bool next(std::string_view& line, std::int64_t& taken, std::int64_t number) {
    std::size_t searched = begin_;
    for (;;) {
      const std::size_t end = buffer_.find('\n', searched);
      if (end != std::string::npos) return give(line, taken, end, end + 1);
      searched = buffer_.size() - begin_;
      require(searched <= kMaxLineBytes, "{}: line {}: longer than {} bytes", path_.string(), number, kMaxLineBytes);
      drop_taken();
      if (!bytes_.append_chunk(buffer_)) break;
    }
    return !buffer_.empty() && give(line, taken, buffer_.size(), buffer_.size());
  }

  void skip(std::int64_t count) {
    while (count > 0) {
      if (begin_ == buffer_.size()) {
        drop_taken();
        require(bytes_.append_chunk(buffer_), "{}: {} bytes shorter than when it was read before", path_.string(),
                count);
      }
      const auto step = std::min(count, static_cast<std::int64_t>(buffer_.size() - begin_));
      begin_ += static_cast<std::size_t>(step);
      count -= step;
    }
  }

 private:
  bool give(std::string_view& line, std::int64_t& taken, std::size_t end, std::size_t next) {
    line = std::string_view(buffer_).substr(begin_, end - begin_);
    taken = static_cast<std::int64_t>(next - begin_);
    begin_ = next;
    return true;
  }
  void drop_taken() {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }

  fs::path path_;
  ByteSource bytes_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what is not taken yet
};

CorpusReader::CorpusReader(std::vector<fs::path> files) : files_(std::move(files)) {
  require(!files_.empty(), "no text file is given");
  for (const fs::path& path : files_) {
    require(is_text(path) || is_lines(path), "{}: not a kind of file that is read; allowed: .txt, .jsonl, .jsonl.zst",
            path.string());
    require(fs::is_regular_file(path), "{}: {}", path.string(), fs::exists(path) ? "not a regular file" : "not found");
    require(std::unique_ptr<std::FILE, CloseFile>(std::fopen(path.c_str(), "rb")) != nullptr, "{}: cannot be read",
            path.string());
    const auto size = static_cast<std::int64_t>(fs::file_size(path));
    require(!is_text(path) || size <= kMaxTextBytes, "{}: {} bytes, a document has at most {}: split it", path.string(),
            size, kMaxTextBytes);
    sizes_.push_back(size);
    bytes_total_ += size;
  }
}

CorpusReader::~CorpusReader() = default;

void CorpusReader::seek(Place place) {
  check(place.file <= files_.size(), "file {} of {}", place.file, files_.size());
  place_ = place;
  source_.reset();
  if (place.file == files_.size() || place.offset == 0) return;
  source_ = std::make_unique<LineSource>(files_[place.file]);
  source_->skip(place.offset);
}

bool CorpusReader::next(RawDocument& document) {
  for (; place_.file < files_.size(); place_ = {place_.file + 1, 0, 0}, source_.reset()) {
    document.file = place_.file;
    if (is_text(files_[place_.file])) {
      document.line = 0;
      document.content = read_text_file(files_[place_.file], static_cast<std::size_t>(kMaxTextBytes));
      place_ = {place_.file + 1, 0, 0};
      return true;
    }
    if (next_line(document)) return true;
  }
  return false;
}

bool CorpusReader::next_line(RawDocument& document) {
  if (source_ == nullptr) source_ = std::make_unique<LineSource>(files_[place_.file]);
  std::string_view line;
  std::int64_t taken = 0;
  while (source_->next(line, taken, place_.line + 1)) {
    place_.offset += taken;
    ++place_.line;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    document.line = place_.line;
    document.content = line;
    return true;
  }
  return false;
}

std::int64_t CorpusReader::bytes_done() const {
  const auto done = sizes_.begin() + static_cast<std::ptrdiff_t>(std::min(place_.file, sizes_.size()));
  return std::accumulate(sizes_.begin(), done, std::int64_t{0}) + (source_ == nullptr ? 0 : source_->file_bytes());
}

std::string CorpusReader::text_of(RawDocument document) const {
  if (document.line == 0) return std::move(document.content);
  const std::string where = fmt::format("{}: line {}", files_[document.file].string(), document.line);
  const Json json = Json::parse(document.content, where);
  require(json.is_object(), "{}: {}, expected an object with \"text\"", where, json.type_name());
  const Json* text = json.find("text");
  require(text != nullptr && text->is_string(), "{}: \"text\" is {}, expected a string", where,
          text == nullptr ? "missing" : text->type_name());
  return text->string();
}

}  // namespace lathe
