// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

// All members are safe to call from many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // No begin- or end-of-document token is added; those that stand in the text (`<|endoftext|>`) are recognised.
  // A tokenizer.json needs valid UTF-8 and throws InputError otherwise; `bytes` takes anything.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // The bytes that a token stands for: empty for special tokens unless asked for, and for ids without a token.
  // They may be part of a UTF-8 character. The view lives as long as the tokenizer.
  virtual std::string_view token_bytes(std::int32_t id, bool with_special = false) const = 0;
  // 1 + the largest id.
  virtual std::int64_t vocab_size() const = 0;
  // The token written after each document.
  virtual std::int32_t end_of_document() const = 0;
  virtual bool needs_utf8() const = 0;
  // Equal for tokenizers that encode equally: names the kind and what it was loaded from.
  virtual std::string fingerprint() const = 0;

  // Valid UTF-8: each maximal run of bytes that is none becomes U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool with_special = false) const;
};

// Decodes token by token: gives text as soon as its characters are whole. The pieces together equal Tokenizer::decode.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool with_special = false)
      : tokenizer_(&tokenizer), with_special_(with_special) {}
  std::string push(std::int32_t id);
  // What is left at the end: an unfinished character as U+FFFD, or nothing.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool with_special_;
  std::string pending_;  // the start of a character, at most 3 bytes
};

// "bytes", or a folder with tokenizer.json (byte-level BPE) and the end-of-document token in tokenizer_config.json
// (eos_token) or config.json (eos_token_id). Throws InputError naming the file and what is not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name);

// id = byte, 256 begins and 257 ends a document.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

struct BpeEndOfDocument {
  std::string token;     // its text, or empty and
  std::int64_t id = -1;  // its id
};
// `source` names the text in errors.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(std::string_view tokenizer_json, const std::string& source,
                                              const BpeEndOfDocument& end_of_document);

}  // namespace lathe
