#include "data/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "data/json_fields.h"
#include "data/utf8.h"

namespace lathe {
namespace {

std::size_t spaces_at_start(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size()) {
    const Utf8Step step = next_utf8(text.substr(count));
    if (!step.valid || !is_unicode_space(step.code)) break;
    count += step.bytes;
  }
  return count;
}

std::size_t spaces_at_end(std::string_view text) {
  std::size_t begin = text.size();
  while (begin > 0) {
    std::size_t last = begin - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0U) == 0x80) --last;
    const Utf8Step step = next_utf8(text.substr(last, begin - last));
    if (!step.valid || !is_unicode_space(step.code)) break;
    begin = last;
  }
  return text.size() - begin;
}

}  // namespace

AddedTokens::AddedTokens(const Json* list, const TextIds& vocabulary, const std::string& source) {
  if (list == nullptr || list->is_null()) return;
  require(list->is_array(), "{}: \"added_tokens\" is {}, expected a list", source, list->type_name());
  for (const Json& entry : list->array()) {
    Token token;
    token.text = string_field(entry, "content", "added_tokens", source);
    if (token.text.empty()) continue;
    const Json* id = entry.find("id");
    require(id != nullptr && id->is_integer() && id->integer() >= 0 && id->integer() < kMaxTokenId,
            "{}: added token \"{}\" has id {}; allowed: 0 to {}", source, token.text,
            id == nullptr ? "(missing)" : id->dump(), kMaxTokenId - 1);
    token.id = static_cast<std::int32_t>(id->integer());
    const auto known = vocabulary.find(token.text);
    require(known == vocabulary.end() || known->second == token.id,
            "{}: added token \"{}\" has id {}, the vocabulary gives it {}", source, token.text, token.id,
            known == vocabulary.end() ? 0 : known->second);
    require(!bool_field(entry, "single_word", false, source), "{}: added token \"{}\": single_word is not supported",
            source, token.text);
    token.special = bool_field(entry, "special", false, source);
    token.takes_space_before = bool_field(entry, "lstrip", false, source);
    token.takes_space_after = bool_field(entry, "rstrip", false, source);
    token.normalized = bool_field(entry, "normalized", !token.special, source);
    any_normalized_ = any_normalized_ || token.normalized;
    Index& index = token.normalized ? normalized_ : plain_;
    index[static_cast<unsigned char>(token.text[0])].push_back(tokens_.size());
    tokens_.push_back(std::move(token));
  }
  for (Index* index : {&plain_, &normalized_})
    for (auto& candidates : *index)
      std::stable_sort(candidates.begin(), candidates.end(),
                       [&](auto a, auto b) { return tokens_[a].text.size() > tokens_[b].text.size(); });
}

const AddedTokens::Token* AddedTokens::find(const Index& index, std::string_view text) const {
  for (const std::size_t candidate : index[static_cast<unsigned char>(text[0])])
    if (text.starts_with(tokens_[candidate].text)) return &tokens_[candidate];
  return nullptr;
}

void AddedTokens::split_one(const Index& index, std::string_view text, std::vector<Segment>& segments) const {
  const auto put = [&](std::size_t begin, std::size_t end, std::int32_t id) {
    if (end > begin) segments.push_back({text.substr(begin, end - begin), id});
  };
  std::size_t done = 0;
  for (std::size_t place = 0; place < text.size();) {
    const Token* token = find(index, text.substr(place));
    if (token == nullptr) {
      ++place;
      continue;
    }
    std::size_t begin = place;
    std::size_t end = place + token->text.size();
    if (token->takes_space_before) begin = std::max(done, begin - spaces_at_end(text.substr(0, begin)));
    if (token->takes_space_after) end += spaces_at_start(text.substr(end));
    put(done, begin, -1);
    put(begin, end, token->id);
    done = place = end;
  }
  put(done, text.size(), -1);
}

void AddedTokens::split(std::string_view text, std::vector<Segment>& segments) const {
  segments.clear();
  split_one(plain_, text, segments);
  if (!any_normalized_) return;
  std::vector<Segment> first;
  first.swap(segments);
  for (const Segment& segment : first) {
    if (segment.id >= 0)
      segments.push_back(segment);
    else
      split_one(normalized_, segment.text, segments);
  }
}

}  // namespace lathe
