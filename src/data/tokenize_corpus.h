// Text files to a token file.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace lathe {

struct TokenizeJob {
  std::string tokenizer;      // "bytes" or a folder with tokenizer.json
  std::filesystem::path out;  // prefix of .bin and .idx
  std::vector<std::filesystem::path> files;
  std::size_t batch_bytes = std::size_t{16} << 20;  // of text held at a time, one document at least
  std::chrono::milliseconds save_interval{2000};    // between the points from which a killed call goes on
};

struct TokenizeResult {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  TokenType type = TokenType::u16;
  std::int64_t resumed_documents = 0;  // that an earlier, interrupted call had done
  bool was_complete = false;           // by an earlier call: nothing was done
};

// Writes each document's tokens and the tokenizer's end-of-document token, in the order of the files. The threads
// (OpenMP) share out documents; their number changes nothing in the result. Progress goes to stderr.
//
// First everything is read and checked (every line of .jsonl, UTF-8 where the tokenizer needs it), so that bad input
// throws InputError with nothing written. Then PREFIX.bin.partial, PREFIX.sizes.partial and PREFIX.progress grow; the
// last says how far the others are on disk for certain, every few seconds. At the end PREFIX.bin and PREFIX.idx appear
// by rename, replacing earlier ones, and PREFIX.source.json, which says what they were made from.
//
// Called again after a kill with the same tokenizer and files (their names, sizes and modification times), it goes on
// from PREFIX.progress and the result is the same to the byte; if any of these changed it starts over. Called again
// after the end, it does nothing if PREFIX.source.json still fits.
TokenizeResult tokenize_corpus(const TokenizeJob& job);

}  // namespace lathe
