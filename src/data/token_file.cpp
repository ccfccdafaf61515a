#include "data/token_file.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
constexpr std::size_t kHeaderBytes = 9 + 8 + 1 + 8 + 8;  // magic, version, type, sequences, document indices
constexpr std::int64_t kChunkTokens = std::int64_t{1} << 20;

// The index is packed without padding, so its numbers are read by copy.
template <typename T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename Function>
decltype(auto) with_type(TokenType type, Function&& function) {
  switch (type) {
    case TokenType::u8:
      return function(std::uint8_t{});
    case TokenType::i8:
      return function(std::int8_t{});
    case TokenType::i16:
      return function(std::int16_t{});
    case TokenType::i32:
      return function(std::int32_t{});
    case TokenType::i64:
      return function(std::int64_t{});
    case TokenType::u16:
      return function(std::uint16_t{});
  }
  fail("unknown token type {}", static_cast<int>(type));
}

TokenType parse_type(std::uint8_t code, const fs::path& path) {
  require(code != 6 && code != 7, "{}: token type {} ({}) holds no token ids; allowed: 1 to 5 (integers), 8 (uint16)",
          path.string(), code, code == 6 ? "float64" : "float32");
  require((code >= 1 && code <= 5) || code == 8, "{}: token type {}; allowed: 1 to 5 (integers), 8 (uint16)",
          path.string(), code);
  return static_cast<TokenType>(code);
}

}  // namespace

std::int64_t size_of(TokenType type) {
  return with_type(type, [](auto sample) { return std::int64_t{sizeof(sample)}; });
}

std::string_view name_of(TokenType type) {
  switch (type) {
    case TokenType::u8:
      return "uint8";
    case TokenType::i8:
      return "int8";
    case TokenType::i16:
      return "int16";
    case TokenType::i32:
      return "int32";
    case TokenType::i64:
      return "int64";
    case TokenType::u16:
      return "uint16";
  }
  return "?";
}

TokenType token_type_for(std::int64_t vocab_size) { return vocab_size < 65500 ? TokenType::u16 : TokenType::i32; }

fs::path bin_path(const fs::path& prefix) { return fs::path(prefix) += ".bin"; }
fs::path idx_path(const fs::path& prefix) { return fs::path(prefix) += ".idx"; }

TokenFile::TokenFile(const fs::path& prefix) : prefix_(prefix), bin_(bin_path(prefix)), idx_(idx_path(prefix)) {
  read_header();
  check_sequences();
  check_documents();
}

void TokenFile::read_header() {
  const auto bytes = idx_.bytes();
  const std::string name = idx_.path().string();
  require(bytes.size() >= kHeaderBytes, "{}: {} bytes, the header of a token index takes {}", name, bytes.size(),
          kHeaderBytes);
  require(std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
          "{}: does not begin with MMIDIDX: not a token index", name);
  const auto version = load<std::uint64_t>(bytes, 9);
  require(version == 1, "{}: version {}, only 1 is read", name, version);
  type_ = parse_type(load<std::uint8_t>(bytes, 17), idx_.path());

  const auto sequences = load<std::uint64_t>(bytes, 18);
  const auto indices = load<std::uint64_t>(bytes, 26);
  const std::uint64_t room = bytes.size() - kHeaderBytes;
  require(
      sequences <= room / 12 && indices <= (room - sequences * 12) / 8 && sequences * 12 + indices * 8 == room,
      "{}: {} sequences (12 bytes each) and {} document indices (8 bytes each) are claimed, but {} bytes follow the "
      "header",
      name, sequences, indices, room);
  require(indices >= 1, "{}: no document index, at least 1 (the first is 0) is needed", name);
  sequences_ = static_cast<std::int64_t>(sequences);
  documents_ = static_cast<std::int64_t>(indices) - 1;

  const auto bin_size = static_cast<std::int64_t>(bin_.bytes().size());
  require(bin_size % size_of(type_) == 0, "{}: {} bytes is no whole number of {} tokens ({} bytes each)",
          bin_.path().string(), bin_size, name_of(type_), size_of(type_));
  tokens_ = bin_size / size_of(type_);
}

// Each sequence must begin where the one before it ends, so that `.bin` is one stream and every offset lies in it.
void TokenFile::check_sequences() {
  const std::string name = idx_.path().string();
  std::int64_t position = 0;
  for (std::int64_t i = 0; i < sequences_; ++i) {
    const auto size = load<std::int32_t>(idx_.bytes(), kHeaderBytes + static_cast<std::size_t>(i) * 4);
    require(size >= 0, "{}: sequence {} has {} tokens", name, i, size);
    require(pointer(i) == position * size_of(type_),
            "{}: sequence {} begins at byte {} of the .bin file, the one before it ends at {}", name, i, pointer(i),
            position * size_of(type_));
    require(size <= tokens_ - position, "{}: sequence {} is tokens {} to {} + {}, but {} holds {} tokens", name, i,
            position, position, size, bin_.path().string(), tokens_);
    position += size;
  }
  require(position == tokens_, "{}: the sequences have {} tokens together, but {} holds {}", name, position,
          bin_.path().string(), tokens_);
}

void TokenFile::check_documents() {
  const std::string name = idx_.path().string();
  require(document_index(0) == 0, "{}: document index 0 is {}, it must be 0", name, document_index(0));
  for (std::int64_t i = 1; i <= documents_; ++i)
    require(document_index(i) >= document_index(i - 1), "{}: document index {} is {}, below the {} before it", name, i,
            document_index(i), document_index(i - 1));
  require(document_index(documents_) == sequences_, "{}: the last document index is {}, it must be {} (the sequences)",
          name, document_index(documents_), sequences_);
}

std::int64_t TokenFile::pointer(std::int64_t sequence) const {
  return load<std::int64_t>(
      idx_.bytes(), kHeaderBytes + static_cast<std::size_t>(sequences_) * 4 + static_cast<std::size_t>(sequence) * 8);
}

std::int64_t TokenFile::document_index(std::int64_t document) const {
  return load<std::int64_t>(
      idx_.bytes(), kHeaderBytes + static_cast<std::size_t>(sequences_) * 12 + static_cast<std::size_t>(document) * 8);
}

std::int64_t TokenFile::document_begin(std::int64_t document) const {
  check(document >= 0 && document <= documents_, "document {} of {}", document, documents_);
  const std::int64_t sequence = document_index(document);
  return sequence == sequences_ ? tokens_ : pointer(sequence) / size_of(type_);
}

void TokenFile::find_document_starts(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& starts) const {
  std::int64_t low = 0;
  std::int64_t high = documents_;
  while (low < high) {  // the first document that starts at `begin` or later
    const std::int64_t middle = low + (high - low) / 2;
    if (document_begin(middle) < begin)
      low = middle + 1;
    else
      high = middle;
  }
  for (std::int64_t previous = -1; low < documents_; ++low) {
    const std::int64_t start = document_begin(low);
    if (start >= end) break;
    if (start != previous) starts.push_back(start);
    previous = start;
  }
}

void TokenFile::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  check(begin >= 0 && count <= tokens_ && begin <= tokens_ - count, "{}: tokens [{}, {} + {}) of {}",
        bin_.path().string(), begin, begin, count, tokens_);
  with_type(type_, [&](auto sample) {
    using T = decltype(sample);
    const std::byte* source = bin_.bytes().data() + begin * std::int64_t{sizeof(T)};
    for (std::size_t i = 0; i < out.size(); ++i) {
      T token;
      std::memcpy(&token, source + i * sizeof(T), sizeof(T));
      if constexpr (sizeof(T) > 4)
        require(std::in_range<std::int32_t>(token), "{}: token {} is {}, outside 32 bits", bin_.path().string(),
                begin + static_cast<std::int64_t>(i), token);
      out[i] = static_cast<std::int32_t>(token);
    }
  });
}

TokenFile::Range TokenFile::range_of(std::int64_t begin, std::int64_t end) const {
  return with_type(type_, [&](auto sample) -> Range {
    using T = decltype(sample);
    const std::byte* source = bin_.bytes().data();
    T low = std::numeric_limits<T>::max();
    T high = std::numeric_limits<T>::min();
    for (std::int64_t i = begin; i < end; ++i) {
      T token;
      std::memcpy(&token, source + i * std::int64_t{sizeof(T)}, sizeof(T));
      low = std::min(low, token);
      high = std::max(high, token);
    }
    return {static_cast<std::int64_t>(low), static_cast<std::int64_t>(high)};
  });
}

std::vector<TokenFile::Range> TokenFile::chunk_ranges() const {
  const std::int64_t chunks = (tokens_ + kChunkTokens - 1) / kChunkTokens;
  std::vector<Range> ranges(static_cast<std::size_t>(chunks));
#pragma omp parallel for schedule(static)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
    ranges[static_cast<std::size_t>(chunk)] =
        range_of(chunk * kChunkTokens, std::min(tokens_, (chunk + 1) * kChunkTokens));
  return ranges;
}

std::int64_t TokenFile::max_token() const {
  std::int64_t largest = -1;
  for (const Range& range : chunk_ranges()) largest = std::max(largest, range.high);
  return largest;
}

void TokenFile::require_ids_below(std::int64_t vocab_size) const {
  const auto is_bad = [&](const Range& range) { return range.low < 0 || range.high >= vocab_size; };
  const auto ranges = chunk_ranges();
  const auto chunk = std::find_if(ranges.begin(), ranges.end(), is_bad);
  if (chunk == ranges.end()) return;
  std::int64_t position = (chunk - ranges.begin()) * kChunkTokens;
  while (!is_bad(range_of(position, position + 1))) ++position;
  refuse("{}: token {} has id {}; allowed: 0 to {} (vocab_size {})", bin_.path().string(), position,
         range_of(position, position + 1).low, vocab_size - 1, vocab_size);
}

}  // namespace lathe
