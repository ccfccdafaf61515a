// Token files: Megatron's `.bin` (the tokens) and `.idx` (their type, sequences and documents), version 1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace lathe {

// Megatron's codes. Its 6 and 7 (float64, float32) are refused: they hold no token ids.
enum class TokenType : std::uint8_t { u8 = 1, i8 = 2, i16 = 3, i32 = 4, i64 = 5, u16 = 8 };

std::int64_t size_of(TokenType type);
std::string_view name_of(TokenType type);
// uint16 for vocabularies under 65,500 tokens, else int32.
TokenType token_type_for(std::int64_t vocab_size);
// PREFIX.bin and PREFIX.idx; a prefix may itself hold dots.
std::filesystem::path bin_path(const std::filesystem::path& prefix);
std::filesystem::path idx_path(const std::filesystem::path& prefix);

// A corpus read in place: one stream of tokens, the documents one after another. Safe to read from many threads.
class TokenFile {
 public:
  // Maps both files and checks each against the other; throws InputError naming the file, the field and the values.
  // What is read of the index is checked before it is used, so that a hostile file costs no memory.
  explicit TokenFile(const std::filesystem::path& prefix);

  const std::filesystem::path& prefix() const { return prefix_; }
  TokenType type() const { return type_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t documents() const { return documents_; }

  // Copies the tokens [begin, begin + out.size()).
  void read(std::int64_t begin, std::span<std::int32_t> out) const;

  // Where a document starts in the stream; `document` in [0, documents()], the last one giving tokens().
  std::int64_t document_begin(std::int64_t document) const;
  // Appends the positions in [begin, end) at which a document starts, ascending, each once (empty documents start where
  // the next one does).
  void find_document_starts(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& starts) const;

  // The largest id, -1 without tokens; reads the whole file, in parallel.
  std::int64_t max_token() const;
  // Throws InputError naming file, position and id of the first token outside [0, vocab_size).
  void require_ids_below(std::int64_t vocab_size) const;

 private:
  void read_header();
  void check_sequences();
  void check_documents();
  std::int64_t pointer(std::int64_t sequence) const;
  std::int64_t document_index(std::int64_t document) const;
  struct Range {
    std::int64_t low;
    std::int64_t high;
  };
  Range range_of(std::int64_t begin, std::int64_t end) const;
  std::vector<Range> chunk_ranges() const;

  std::filesystem::path prefix_;
  MappedFile bin_;
  MappedFile idx_;
  TokenType type_ = TokenType::u16;
  std::int64_t tokens_ = 0;
  std::int64_t sequences_ = 0;
  std::int64_t documents_ = 0;
};

}  // namespace lathe
