#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include "core/file.h"
#include "core/json.h"
#include "core/philox.h"
#include "data/bpe_model.h"
#include "data/data_testing.h"
#include "data/split_regex.h"
#include "data/utf8.h"

namespace lathe {
namespace {

const std::filesystem::path kGoldens = std::filesystem::path(LATHE_GOLDEN_DIR) / "tokenizer";

TEST(ByteTokenizer, IsTheBytes) {
  const auto tokenizer = load_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_EQ(tokenizer->end_of_document(), 257);
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const auto ids = tokenizer->encode(all);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<std::size_t>(byte)], byte);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("naïve 🙂\n")), "naïve 🙂\n");
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{256, 'a', 257, 258, -1, 99999}), "a");
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{'a', 257}, true), "a<|end_of_document|>");
}

TEST(Utf8, ReplacesMaximalBrokenParts) {
  EXPECT_EQ(replace_invalid_utf8("a\xF0\x9F\x99z"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F"), "\xEF\xBF\xBD");
  EXPECT_EQ(replace_invalid_utf8("\x80\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xF5"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(find_invalid_utf8("ok\xE2\x82"), 2U);
  for (char32_t code = 0; code < 0x110000; code += code < 0x3000 ? 1 : 251) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(code, text);
    const Utf8Step step = next_utf8(text);
    ASSERT_TRUE(step.valid && step.code == code && step.bytes == text.size()) << std::uint32_t{code};
  }
}

TEST(StreamDecoder, GivesWholeCharactersAsSoonAsTheyAreThere) {
  const auto tokenizer = load_tokenizer("bytes");
  StreamDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x99), "");
  EXPECT_EQ(decoder.push(0x82), "🙂");
  EXPECT_EQ(decoder.push('x'), "x");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('y'), "\xEF\xBF\xBDy");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.finish(), "");
}

// Any bytes, in pieces and at once.
TEST(StreamDecoder, EqualsDecode) {
  const auto tokenizer = load_tokenizer("bytes");
  const Philox random(3);
  const unsigned char kinds[] = {'a', 0x80, 0xBF, 0xC3, 0xE0, 0xED, 0xA0, 0xF0, 0x90, 0xF4, 0xFF, 0x9F};
  for (std::uint64_t trial = 0; trial < 2000; ++trial) {
    std::vector<std::int32_t> ids;
    for (std::uint64_t i = 0; i < 12; ++i) ids.push_back(kinds[random.below(trial * 12 + i, sizeof(kinds))]);
    StreamDecoder decoder(*tokenizer);
    std::string text;
    for (const auto id : ids) text += decoder.push(id);
    text += decoder.finish();
    ASSERT_EQ(text, tokenizer->decode(ids));
    ASSERT_EQ(find_invalid_utf8(text), std::string::npos);
  }
}

// Long pieces merge by another algorithm than short ones; both against the definition.
TEST(BpeModel, MergesByTheDefinition) {
  const Json root = Json::parse(read_text_file(kGoldens / "gpt2" / "tokenizer.json"), "gpt2");
  const BpeModel model(*root.find("model"), "gpt2");
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Json& merge : root.find("model")->find("merges")->array()) {
    const auto space = merge.string().find(' ');
    merges.emplace_back(merge.string().substr(0, space), merge.string().substr(space + 1));
  }
  const Philox random(5);
  BpeModel::Scratch scratch;
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    std::vector<std::string> parts;
    std::string piece;
    for (std::uint64_t i = 0; i < 1 + trial % 90; ++i) {
      parts.emplace_back(1, "thesandrioquckl"[random.below(trial * 100 + i, 15)]);
      piece += parts.back();
    }
    for (;;) {
      std::size_t best_rank = merges.size();
      std::size_t best = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1]));
        const auto rank = static_cast<std::size_t>(found - merges.begin());
        if (rank < best_rank) {
          best_rank = rank;
          best = i;
        }
      }
      if (best_rank == merges.size()) break;
      parts[best] += parts[best + 1];
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    std::vector<std::int32_t> expected;
    for (const auto& part : parts) expected.push_back(model.vocabulary().find(part)->second);
    std::vector<std::int32_t> ids;
    model.encode(piece, scratch, ids);
    ASSERT_EQ(ids, expected) << piece;
  }
}

TEST(SplitRegex, TranslatesAndRefuses) {
  const auto translated = [](std::string_view pattern) { return oniguruma_to_pcre2(pattern, "file"); };
  EXPECT_EQ(translated("\\s+(?!\\S)|[^\\s\\p{L}]\\v"),
            "\\p{White_Space}+(?!\\P{White_Space})|[^\\p{White_Space}\\p{L}]\\x0b");
  EXPECT_EQ(translated("\\u00e9{1,3}x{a"), "\\x{00e9}{1,3}x\\{a");
  for (const auto* pattern :
       {"\\h",     "\\b",    "\\R",  "\\1",   "\\K", "[a[b]]", "[a&&b]", "[]a]",  "a{2,3}+", "a{2}?", "a{,2}", "(?m:a)",
        "(?<n>a)", "a(?i)b", "\\pL", "[\\W]", "[",   "(",      "a\\",    "\\u12", "(*UCP)a", "\\p{L", "(?#x)"})
    expect_refused([&] { const SplitRegex regex(pattern, "file"); }, {"file: regular expression"});
}

TEST(SplitRegex, EmptyMatchesCountUnlessTheyTouchAnother) {
  const SplitRegex regex("x*", "file");
  RegexScratch scratch;
  std::vector<SplitRegex::Match> matches;
  regex.find_all("éxx", scratch, matches);
  ASSERT_EQ(matches.size(), 2U);
  EXPECT_EQ(matches[0].begin, 0U);
  EXPECT_EQ(matches[0].end, 0U);
  EXPECT_EQ(matches[1].begin, 2U);
  EXPECT_EQ(matches[1].end, 4U);
}

// A tokenizer.json with one member replaced; an empty value removes it.
std::string changed(const std::string& path, const std::string& value) {
  Json root = Json::parse(R"({
    "normalizer": null, "added_tokens": [{"id": 3, "content": "<end>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})",
                          "base");
  if (path.empty()) return root.dump();
  const Json parsed = value.empty() ? Json() : Json::parse(value, "value");
  const auto dot = path.find('.');
  if (dot == std::string::npos) {
    root.set(path, parsed);
  } else {
    Json inner = *root.find(path.substr(0, dot));
    inner.set(path.substr(dot + 1), parsed);
    root.set(path.substr(0, dot), inner);
  }
  return root.dump();
}

std::unique_ptr<Tokenizer> make(const std::string& json, const BpeEndOfDocument& end = {"<end>", -1}) {
  return make_bpe_tokenizer(json, "t.json", end);
}

TEST(BpeTokenizer, TheSmallestFile) {
  const auto tokenizer = make(changed("", ""));
  EXPECT_EQ(tokenizer->encode("abb<end>a"), (std::vector<std::int32_t>{2, 1, 3, 0}));
  EXPECT_EQ(tokenizer->vocab_size(), 4);
  EXPECT_EQ(make(changed("", ""), {"", 2})->end_of_document(), 2);
  expect_refused([&] { tokenizer->encode("abc"); }, {"t.json", "no token for byte 99"});
  expect_refused([&] { tokenizer->encode("ab\xFF"); }, {"not UTF-8 at byte 2", "t.json"});
  // After a refusal it goes on as before.
  EXPECT_EQ(tokenizer->encode("ab"), std::vector<std::int32_t>{2});
}

TEST(BpeTokenizer, RefusesByName) {
  const auto refuse_change = [](const std::string& path, const std::string& value,
                                std::initializer_list<std::string_view> parts) {
    SCOPED_TRACE(path + " " + value);
    expect_refused([&] { make(changed(path, value)); }, {"t.json"});
    expect_refused([&] { make(changed(path, value)); }, parts);
  };
  refuse_change("model.type", R"("WordPiece")", {"WordPiece", "BPE"});
  refuse_change("model.type", R"("Unigram")", {"Unigram"});
  refuse_change("model.byte_fallback", "true", {"byte_fallback"});
  refuse_change("model.dropout", "0.1", {"dropout"});
  refuse_change("model.end_of_word_suffix", R"("</w>")", {"end_of_word_suffix"});
  refuse_change("model.continuing_subword_prefix", R"("##")", {"continuing_subword_prefix"});
  refuse_change("model.vocab", "[]", {"vocab", "a list"});
  refuse_change("model.vocab", R"({"a": -1})", {"\"a\"", "-1"});
  refuse_change("model.vocab", R"({"a": 4000000000})", {"4000000000"});
  refuse_change("model.vocab", R"({"a": 1e300})", {"\"a\""});
  refuse_change("model.merges", "", {"merges"});
  refuse_change("model.merges", R"(["ab"])", {"merge 0", "ab"});
  refuse_change("model.merges", R"(["a b c"])", {"merge 0", "a b c"});
  refuse_change("model.merges", R"([["a"]])", {"merge 0"});
  refuse_change("model.merges", R"(["a b", "b b"])", {"merge 1", "\"bb\" is not in the vocabulary"});
  refuse_change("normalizer", R"({"type": "NFC"})", {"normalizer NFC"});
  refuse_change("normalizer", R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})", {"Lowercase"});
  refuse_change("pre_tokenizer", "", {"pre_tokenizer"});
  refuse_change("pre_tokenizer", R"({"type": "Metaspace"})", {"Metaspace"});
  refuse_change("pre_tokenizer", R"({"type": "Digits"})", {"no ByteLevel"});
  refuse_change("pre_tokenizer", R"({"type": "Split", "behavior": "MergedWithNext", "pattern": {"String": "x"}})",
                {"MergedWithNext"});
  refuse_change("pre_tokenizer", R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "(a"}})", {"(a"});
  refuse_change("decoder", "", {"decoder"});
  refuse_change("decoder", R"({"type": "WordPiece"})", {"decoder WordPiece"});
  refuse_change("added_tokens", R"([{"id": 9, "content": "ab"}])", {"\"ab\"", "9", "2"});
  refuse_change("added_tokens", R"([{"id": -9, "content": "x"}])", {"\"x\"", "-9"});
  refuse_change("added_tokens", R"([{"id": 9, "content": "x", "single_word": true}])", {"single_word"});
  expect_refused([] { make("[]"); }, {"t.json"});
  expect_refused([] { make("{"); }, {"t.json"});
  expect_refused([] { make("{}"); }, {"t.json", "model"});
  expect_refused([] { make(changed("", ""), {"<no>", -1}); }, {"t.json", "<no>"});
  expect_refused([] { make(changed("", ""), {"", 4}); }, {"t.json", "id 4", "0 to 3"});
  expect_refused([] { make(changed("", ""), {"", -1}); }, {"t.json", "id -1"});
}

TEST(LoadTokenizer, FindsTheEndOfDocument) {
  const TemporaryFolder folder;
  const auto load = [&] { return load_tokenizer(folder.path().string()); };
  expect_refused(load, {"tokenizer.json"});
  write_bytes(folder / "tokenizer.json", changed("", ""));
  expect_refused(load, {"no end-of-document token"});
  write_bytes(folder / "config.json", R"({"eos_token_id": 1})");
  EXPECT_EQ(load()->end_of_document(), 1);
  write_bytes(folder / "config.json", R"({"eos_token_id": [2, 1]})");
  EXPECT_EQ(load()->end_of_document(), 2);
  write_bytes(folder / "tokenizer_config.json", R"({"eos_token": {"content": "<end>"}})");
  EXPECT_EQ(load()->end_of_document(), 3);
  write_bytes(folder / "tokenizer_config.json", R"({"eos_token": null})");
  EXPECT_EQ(load()->end_of_document(), 2);
  write_bytes(folder / "tokenizer_config.json", R"({"eos_token": 5})");
  expect_refused(load, {"tokenizer_config.json", "eos_token"});
  expect_refused([] { load_tokenizer("no/such/folder"); }, {"no/such/folder", "bytes"});
}

}  // namespace
}  // namespace lathe
