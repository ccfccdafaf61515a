#include <array>

#include "data/tokenizer.h"

namespace lathe {
namespace {

constexpr std::int32_t kEndOfDocument = 257;  // 256, the beginning of one, is never written
constexpr std::int64_t kVocabSize = 258;

class ByteTokenizer : public Tokenizer {
 public:
  ByteTokenizer() {
    for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }
  std::string_view token_bytes(std::int32_t id, bool with_special) const override {
    if (id >= 0 && id < 256) return {&bytes_[static_cast<std::size_t>(id)], 1};
    if (!with_special) return {};
    return id == 256 ? "<|begin_of_document|>" : id == 257 ? "<|end_of_document|>" : "";
  }
  std::int64_t vocab_size() const override { return kVocabSize; }
  std::int32_t end_of_document() const override { return kEndOfDocument; }
  bool needs_utf8() const override { return false; }
  std::string fingerprint() const override { return "bytes"; }

 private:
  std::array<char, 256> bytes_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace lathe
