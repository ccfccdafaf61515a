// Writes a token file so that it appears whole or not at all, and so that writing can go on after a kill.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "data/token_file.h"

namespace lathe {

// While it writes there are PREFIX.bin.partial (the tokens) and PREFIX.sizes.partial (an int32 a document); `finish`
// makes PREFIX.bin and PREFIX.idx of them by rename. A second writer of the same prefix is refused.
class TokenFileWriter {
 public:
  // What the partial files hold for certain after `sync`.
  struct Position {
    std::int64_t documents = 0;
    std::int64_t tokens = 0;
  };

  // Throws InputError if another process is writing the same prefix.
  TokenFileWriter(std::filesystem::path prefix, TokenType type);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // Cuts what partial files there are to an earlier `sync`. False, and both are empty, if they are shorter than that.
  // Without this call the first document empties them.
  bool start_at(Position position);

  void append_document(std::span<const std::int32_t> tokens);
  // Flushes and fsyncs what was appended.
  Position sync();
  Position position() const { return position_; }

  // The last steps: write PREFIX.idx.partial, then rename. The second may be called again after a kill inside it.
  void prepare_index();
  static void finish_renames(const std::filesystem::path& prefix);
  void finish() {
    prepare_index();
    finish_renames(prefix_);
  }
  // Removes the partial files of a prefix.
  static void discard(const std::filesystem::path& prefix);

 private:
  class Output;
  void write_u16(std::span<const std::int32_t> tokens);

  std::filesystem::path prefix_;
  TokenType type_;
  Position position_;
  bool started_ = false;
  std::unique_ptr<Output> bin_;
  std::unique_ptr<Output> sizes_;
};

}  // namespace lathe
