#include "data/tokenizer.h"

#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "data/utf8.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

// eos_token of tokenizer_config.json: a string, or an object with its `content`.
std::string eos_text(const fs::path& folder) {
  const fs::path path = folder / "tokenizer_config.json";
  if (!fs::exists(path)) return {};
  const Json config = Json::parse(read_text_file(path), path.string());
  const Json* eos = config.find("eos_token");
  if (eos != nullptr && eos->is_object()) eos = eos->find("content");
  if (eos == nullptr || eos->is_null()) return {};
  require(eos->is_string(), "{}: eos_token is {}, expected a string", path.string(), eos->type_name());
  return eos->string();
}

std::int64_t eos_id(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  require(fs::exists(path),
          "{}: names no end-of-document token: neither eos_token in tokenizer_config.json nor eos_token_id in "
          "config.json",
          folder.string());
  const Json config = Json::parse(read_text_file(path), path.string());
  const Json* id = config.find("eos_token_id");
  if (id != nullptr && id->is_array() && !id->array().empty()) id = &id->array().front();
  require(id != nullptr && id->is_integer(), "{}: eos_token_id is {}, expected a whole number", path.string(),
          id == nullptr ? "missing" : id->type_name());
  return id->integer();
}

}  // namespace

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool with_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) bytes += token_bytes(id, with_special);
  return replace_invalid_utf8(bytes);
}

std::string StreamDecoder::push(std::int32_t id) {
  pending_ += tokenizer_->token_bytes(id, with_special_);
  std::size_t whole = pending_.size();
  for (std::size_t i = 0; i < pending_.size();) {
    const Utf8Step step = next_utf8(std::string_view(pending_).substr(i));
    if (step.cut_off) whole = i;
    i += step.bytes;
  }
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name) {
  if (name == "bytes") return make_byte_tokenizer();
  const fs::path folder = name;
  require(fs::is_directory(folder), "tokenizer {}: expected \"bytes\" or a folder with tokenizer.json", name);
  const fs::path path = folder / "tokenizer.json";
  const std::string json = read_text_file(path);
  BpeEndOfDocument end;
  end.token = eos_text(folder);
  if (end.token.empty()) end.id = eos_id(folder);
  return make_bpe_tokenizer(json, path.string(), end);
}

}  // namespace lathe
