#include <algorithm>
#include <mutex>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "data/added_tokens.h"
#include "data/bpe_model.h"
#include "data/json_fields.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace lathe {
namespace {

struct Scratch {
  PreTokenizer::Scratch pieces;
  BpeModel::Scratch words;
  std::vector<AddedTokens::Segment> segments;
};

// Scratch that threads borrow, so that `encode` has no state of its own and words met in one text help the next.
class ScratchPool {
 public:
  std::unique_ptr<Scratch> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>();
    auto scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

void require_no_normalizer(const Json* normalizer, const std::string& source) {
  if (normalizer == nullptr || normalizer->is_null()) return;
  const std::string type = string_field(*normalizer, "type", "normalizer", source);
  const Json* parts = normalizer->find("normalizers");
  require(type == "Sequence" && parts != nullptr && parts->is_array(),
          "{}: normalizer {} is not supported; supported: none", source, type);
  for (const Json& part : parts->array()) require_no_normalizer(&part, source);
}

void require_byte_decoder(const Json* decoder, const std::string& source) {
  require(decoder != nullptr && decoder->is_object(), "{}: no decoder; supported: ByteLevel", source);
  const std::string type = string_field(*decoder, "type", "decoder", source);
  const Json* parts = decoder->find("decoders");
  if (type == "Sequence" && parts != nullptr && parts->is_array() && parts->array().size() == 1)
    return require_byte_decoder(&parts->array()[0], source);
  require(type == "ByteLevel", "{}: decoder {} is not supported; supported: ByteLevel", source, type);
}

const Json& model_of(const Json& root, const std::string& source) {
  require(root.is_object(), "{}: {}, expected an object", source, root.type_name());
  const Json* model = root.find("model");
  require(model != nullptr && model->is_object(), "{}: no \"model\"", source);
  return *model;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(const Json& root, const std::string& source, std::string fingerprint)
      : model_(model_of(root, source), source),
        added_(root.find("added_tokens"), model_.vocabulary(), source),
        pre_tokenizer_(root.find("pre_tokenizer"), source),
        source_(source),
        fingerprint_(std::move(fingerprint)) {
    require_no_normalizer(root.find("normalizer"), source);
    require_byte_decoder(root.find("decoder"), source);
    fill_table();
  }

  void set_end_of_document(const BpeEndOfDocument& end) {
    if (!end.token.empty()) {
      end_of_document_ = id_of(end.token);
      require(end_of_document_ >= 0, "{}: the end-of-document token \"{}\" is not among its tokens", source_,
              end.token);
      return;
    }
    require(end.id >= 0 && end.id < vocab_size(), "{}: the end-of-document token has id {}; allowed: 0 to {}", source_,
            end.id, vocab_size() - 1);
    end_of_document_ = static_cast<std::int32_t>(end.id);
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    const auto bad = find_invalid_utf8(text);
    require(bad == std::string_view::npos, "text that is not UTF-8 at byte {} cannot be tokenized by {}", bad, source_);
    std::vector<std::int32_t> ids;
    auto scratch = pool_.take();
    added_.split(text, scratch->segments);
    for (const auto& segment : scratch->segments) {
      if (segment.id >= 0)
        ids.push_back(segment.id);
      else
        for (const auto piece : pre_tokenizer_.split(segment.text, scratch->pieces))
          model_.encode(piece, scratch->words, ids);
    }
    pool_.give(std::move(scratch));
    return ids;
  }

  std::string_view token_bytes(std::int32_t id, bool with_special) const override {
    if (id < 0 || id >= vocab_size()) return {};
    const Entry& entry = table_[static_cast<std::size_t>(id)];
    return entry.special && !with_special ? std::string_view{} : entry.bytes;
  }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(table_.size()); }
  std::int32_t end_of_document() const override { return end_of_document_; }
  bool needs_utf8() const override { return true; }
  std::string fingerprint() const override { return fmt::format("{} end {}", fingerprint_, end_of_document_); }

 private:
  struct Entry {
    std::string bytes;
    bool special = false;
  };

  void fill_table() {
    const auto put = [&](std::int32_t id, std::string_view text, bool special) {
      if (static_cast<std::size_t>(id) >= table_.size()) table_.resize(static_cast<std::size_t>(id) + 1);
      table_[static_cast<std::size_t>(id)] = {bytes_of_token(text), special};
    };
    for (const auto& [text, id] : model_.vocabulary()) put(id, text, false);
    for (const auto& token : added_.tokens()) put(token.id, token.text, token.special);
    require(!table_.empty(), "{}: it has no tokens", source_);
  }

  std::int32_t id_of(const std::string& text) const {
    for (const auto& token : added_.tokens())
      if (token.text == text) return token.id;
    const auto found = model_.vocabulary().find(text);
    return found == model_.vocabulary().end() ? -1 : found->second;
  }

  BpeModel model_;
  AddedTokens added_;
  PreTokenizer pre_tokenizer_;
  std::string source_;
  std::string fingerprint_;
  std::vector<Entry> table_;  // by id
  std::int32_t end_of_document_ = -1;
  mutable ScratchPool pool_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(std::string_view tokenizer_json, const std::string& source,
                                              const BpeEndOfDocument& end_of_document) {
  auto tokenizer = std::make_unique<BpeTokenizer>(Json::parse(tokenizer_json, source), source,
                                                  fmt::format("bpe {:016x}", fnv1a(tokenizer_json)));
  tokenizer->set_end_of_document(end_of_document);
  return tokenizer;
}

}  // namespace lathe
