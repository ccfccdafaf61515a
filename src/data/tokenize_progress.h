// The files beside a token file that say what it is made from and how far that is: PREFIX.progress while it is being
// written, PREFIX.source.json afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/corpus_reader.h"
#include "data/token_file_writer.h"

namespace lathe {

// Tokenizer and files, as JSON to be compared.
Json describe_source(const std::string& tokenizer_fingerprint, const std::vector<std::filesystem::path>& files);

struct TokenizeState {
  TokenFileWriter::Position written;
  CorpusReader::Place read;
  bool renaming = false;  // all is written; only the renames are left
};

// The state in PREFIX.progress; none if the file is missing, damaged or of another source.
std::optional<TokenizeState> load_progress(const std::filesystem::path& prefix, const Json& source);
void save_progress(const std::filesystem::path& prefix, const Json& source, const TokenizeState& state);
void remove_progress(const std::filesystem::path& prefix);

// What PREFIX.source.json says was written; none unless it is of this source and .bin and .idx have its sizes.
std::optional<TokenFileWriter::Position> find_complete(const std::filesystem::path& prefix, const Json& source);
void save_complete(const std::filesystem::path& prefix, const Json& source, TokenFileWriter::Position written);

}  // namespace lathe
