#include "data/bpe_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "data/json_fields.h"
#include "data/utf8.h"

namespace lathe {
namespace {

constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
// Up to here a scan for the lowest rank after each merge is faster than a heap.
constexpr std::size_t kShortPiece = 40;

// GPT-2's table: printable Latin-1 stands for itself, the other bytes, in order, for U+0100 onwards.
bool stands_for_itself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) table[byte] = stands_for_itself(byte) ? byte : next++;
  return table;
}

// -1 for a character that stands for no byte.
int byte_of_character(char32_t code) {
  static const auto kBytes = [] {
    std::array<std::int16_t, 0x144> bytes{};
    bytes.fill(-1);
    const auto characters = byte_characters();
    for (std::size_t byte = 0; byte < 256; ++byte) bytes[characters[byte]] = static_cast<std::int16_t>(byte);
    return bytes;
  }();
  return code < kBytes.size() ? kBytes[code] : -1;
}

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::uint64_t hash_pair(std::uint64_t pair) {
  const std::uint64_t mixed = pair * 0x9E3779B97F4A7C15U;
  return mixed ^ mixed >> 32;
}

void require_absent(const Json& model, std::string_view key, const std::string& source) {
  const Json* value = model.find(key);
  const bool absent = value == nullptr || value->is_null() || *value == Json("") || *value == Json(false) ||
                      (value->is_number() && value->number() == 0);
  require(absent, "{}: model: \"{}\" is set to {}; supported: byte-level BPE without it", source, key,
          absent ? "" : value->dump().substr(0, 60));
}

}  // namespace

bool is_byte_text(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = next_utf8(text.substr(i));
    if (!step.valid || byte_of_character(step.code) < 0) return false;
    i += step.bytes;
  }
  return true;
}

std::string bytes_of_token(std::string_view text) {
  if (!is_byte_text(text)) return std::string(text);
  std::string bytes;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = next_utf8(text.substr(i));
    bytes.push_back(static_cast<char>(byte_of_character(step.code)));
    i += step.bytes;
  }
  return bytes;
}

BpeModel::BpeModel(const Json& model, const std::string& source) : source_(source) {
  // Files from before the field existed are BPE if they have merges.
  const Json* type = model.find("type");
  require(type == nullptr ? model.find("merges") != nullptr : *type == Json("BPE"),
          "{}: model type {} is not supported; supported: BPE (byte-level)", source,
          type == nullptr ? "(missing)" : type->dump());
  for (const auto* key : {"byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix"})
    require_absent(model, key, source);
  read_vocabulary(model);
  read_merges(model);
}

void BpeModel::read_vocabulary(const Json& model) {
  const Json* vocabulary = model.find("vocab");
  require(vocabulary != nullptr && vocabulary->is_object(), "{}: model: \"vocab\" is {}, expected an object", source_,
          vocabulary == nullptr ? "missing" : vocabulary->type_name());
  const bool whole_words = bool_field(model, "ignore_merges", false, source_);
  for (const auto& [text, id] : vocabulary->object()) {
    require(id.is_integer() && id.integer() >= 0 && id.integer() < kMaxTokenId,
            "{}: model: vocab: \"{}\" has id {}; allowed: 0 to {}", source_, text, id.dump(), kMaxTokenId - 1);
    vocabulary_.emplace(text, static_cast<std::int32_t>(id.integer()));
    if (whole_words && is_byte_text(text))
      whole_words_.emplace(bytes_of_token(text), static_cast<std::int32_t>(id.integer()));
  }
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(characters[byte], text);
    const auto found = vocabulary_.find(text);
    byte_ids_[byte] = found == vocabulary_.end() ? -1 : found->second;
  }
}

void BpeModel::read_merges(const Json& model) {
  const Json* merges = model.find("merges");
  require(merges != nullptr && merges->is_array(), "{}: model: \"merges\" is {}, expected a list", source_,
          merges == nullptr ? "missing" : merges->type_name());
  merges_.resize(std::bit_ceil(merges->array().size() * 2 + 2));
  std::uint32_t rank = 0;
  for (const Json& merge : merges->array()) {
    if (merge.is_string()) {
      const std::string& text = merge.string();
      if (text.starts_with("#version")) continue;
      const auto space = text.find(' ');
      require(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
              "{}: merge {}: \"{}\", expected two tokens with a space between them", source_, rank, text);
      add_merge(text.substr(0, space), text.substr(space + 1), rank++);
    } else {
      require(
          merge.is_array() && merge.array().size() == 2 && merge.array()[0].is_string() && merge.array()[1].is_string(),
          "{}: merge {}: {}, expected two tokens", source_, rank, merge.dump().substr(0, 60));
      add_merge(merge.array()[0].string(), merge.array()[1].string(), rank++);
    }
  }
}

void BpeModel::add_merge(const std::string& left, const std::string& right, std::uint32_t rank) {
  const auto id_of = [&](const std::string& text) {
    const auto found = vocabulary_.find(text);
    require(found != vocabulary_.end(), "{}: merge {} (\"{}\" and \"{}\"): \"{}\" is not in the vocabulary", source_,
            rank, left, right, text);
    return found->second;
  };
  const std::uint64_t pair = pair_key(id_of(left), id_of(right));
  const std::size_t mask = merges_.size() - 1;
  std::size_t slot = hash_pair(pair) & mask;
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  merges_[slot] = {pair, rank, id_of(left + right)};
}

const BpeModel::Merge* BpeModel::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_key(left, right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t slot = hash_pair(pair) & mask;; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
}

std::uint32_t BpeModel::rank_of(std::int32_t left, std::int32_t right) const {
  const Merge* merge = find_merge(left, right);
  return merge == nullptr ? kNoRank : merge->rank;
}

void BpeModel::encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (piece.size() > Scratch::kCachedBytes) return encode_uncached(piece, scratch, ids);
  auto& slot = scratch.cache[TextHash{}(piece) & (Scratch::kCacheSlots - 1)];
  if (slot.bytes == piece.size() && std::memcmp(slot.word, piece.data(), piece.size()) == 0) {
    ids.insert(ids.end(), slot.id, slot.id + slot.ids);
    return;
  }
  const std::size_t before = ids.size();
  encode_uncached(piece, scratch, ids);
  const std::size_t count = ids.size() - before;
  if (count > Scratch::kCachedIds) return;
  slot.bytes = static_cast<std::uint8_t>(piece.size());
  slot.ids = static_cast<std::uint8_t>(count);
  std::memcpy(slot.word, piece.data(), piece.size());
  std::copy(ids.end() - static_cast<std::ptrdiff_t>(count), ids.end(), slot.id);
}

void BpeModel::encode_uncached(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (const auto whole = whole_words_.find(piece); whole != whole_words_.end()) {
    ids.push_back(whole->second);
    return;
  }
  start_symbols(piece, scratch);
  if (piece.size() <= kShortPiece)
    merge_short(scratch);
  else
    merge_long(scratch);
  for (const auto& symbol : scratch.symbols)
    if (symbol.id >= 0) ids.push_back(symbol.id);
}

void BpeModel::start_symbols(std::string_view piece, Scratch& scratch) const {
  require(piece.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()),
          "{}: a piece of text of {} bytes without a place to cut it", source_, piece.size());
  auto& symbols = scratch.symbols;
  symbols.resize(piece.size());
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const auto byte = static_cast<unsigned char>(piece[i]);
    require(byte_ids_[byte] >= 0, "{}: the vocabulary has no token for byte {}", source_, byte);
    const auto place = static_cast<std::int32_t>(i);
    symbols[i] = {byte_ids_[byte], kNoRank, place - 1, place + 1};
  }
  for (std::size_t i = 0; i + 1 < piece.size(); ++i) symbols[i].rank = rank_of(symbols[i].id, symbols[i + 1].id);
}

// The lowest rank first, of equals the leftmost.
void BpeModel::merge_short(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  while (symbols.size() > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < symbols.size(); ++i)
      if (symbols[i].rank < symbols[best].rank) best = i;
    if (symbols[best].rank == kNoRank) return;
    symbols[best].id = find_merge(symbols[best].id, symbols[best + 1].id)->result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    symbols[best].rank = best + 1 < symbols.size() ? rank_of(symbols[best].id, symbols[best + 1].id) : kNoRank;
    if (best > 0) symbols[best - 1].rank = rank_of(symbols[best - 1].id, symbols[best].id);
  }
}

// The same in n log n: a heap of (rank, position), and a linked list in which a merged symbol has id -1. An entry is
// out of date if its position's pair has another rank by now.
void BpeModel::merge_long(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto size = static_cast<std::int32_t>(symbols.size());
  const auto at = [&](std::int32_t place) -> Scratch::Symbol& { return symbols[static_cast<std::size_t>(place)]; };
  const auto update = [&](std::int32_t place) {
    auto& symbol = at(place);
    symbol.rank = symbol.next < size ? rank_of(symbol.id, at(symbol.next).id) : kNoRank;
    if (symbol.rank == kNoRank) return;
    heap.push_back(std::uint64_t{symbol.rank} << 32 | static_cast<std::uint32_t>(place));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  heap.clear();
  for (std::int32_t place = 0; place + 1 < size; ++place) update(place);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const std::uint64_t entry = heap.back();
    heap.pop_back();
    const auto place = static_cast<std::int32_t>(entry & 0xffffffffU);
    auto& symbol = at(place);
    if (symbol.id < 0 || symbol.rank != entry >> 32) continue;
    auto& eaten = at(symbol.next);
    symbol.id = find_merge(symbol.id, eaten.id)->result;
    eaten.id = -1;
    symbol.next = eaten.next;
    if (symbol.next < size) at(symbol.next).previous = place;
    update(place);
    if (symbol.previous >= 0) update(symbol.previous);
  }
}

}  // namespace lathe
