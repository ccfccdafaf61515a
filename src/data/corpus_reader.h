// Documents from text files: .txt (a file is one), .jsonl and .jsonl.zst (each line's `text` is one).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

struct RawDocument {
  std::size_t file = 0;
  std::int64_t line = 0;  // from 1; 0: the content is the text itself
  std::string content;
};

class CorpusReader {
 public:
  // Where the next document is read.
  struct Place {
    std::size_t file = 0;
    std::int64_t offset = 0;  // bytes of the file, decompressed
    std::int64_t line = 0;    // lines before it
  };

  // Throws InputError naming a file that is missing, of another kind or too large to be one document.
  explicit CorpusReader(std::vector<std::filesystem::path> files);
  ~CorpusReader();

  // Throws InputError if the file is shorter than that.
  void seek(Place place);
  // False at the end. Lines of white space alone are passed over.
  bool next(RawDocument& document);
  Place place() const { return place_; }

  // Of the files as they lie on disk, for a progress bar.
  std::int64_t bytes_done() const;
  std::int64_t bytes_total() const { return bytes_total_; }

  const std::filesystem::path& file(std::size_t index) const { return files_[index]; }
  // The document's text; throws InputError naming file and line unless the line is a JSON object with a string `text`.
  std::string text_of(RawDocument document) const;

 private:
  class LineSource;
  bool next_line(RawDocument& document);

  std::vector<std::filesystem::path> files_;
  std::vector<std::int64_t> sizes_;
  std::int64_t bytes_total_ = 0;
  Place place_;
  std::unique_ptr<LineSource> source_;  // of the file under way
};

}  // namespace lathe
