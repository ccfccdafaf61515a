// Against what Hugging Face `tokenizers` does: scripts/make_tokenizer_goldens.py.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/file.h"
#include "core/json.h"
#include "data/tokenizer.h"

namespace lathe {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(LATHE_GOLDEN_DIR) / "tokenizer";

std::vector<std::int32_t> ids_of(const Json& entry) {
  std::vector<std::int32_t> ids;
  for (const Json& id : entry.find("ids")->array()) ids.push_back(static_cast<std::int32_t>(id.integer()));
  return ids;
}

std::string decode_stream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

Json load(const std::filesystem::path& path) { return Json::parse(read_text_file(path), path.string()); }

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    tokenizer_ = load_tokenizer((kFolder / GetParam()).string());
    golden_ = load(kFolder / GetParam() / "golden.json");
    texts_ = load(kFolder / "texts.json");
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  Json golden_;
  Json texts_;
};

TEST_P(TokenizerGolden, Sizes) {
  EXPECT_EQ(tokenizer_->vocab_size(), golden_.find("vocab_size")->integer());
  EXPECT_EQ(tokenizer_->end_of_document(), golden_.find("end_of_document")->integer());
}

TEST_P(TokenizerGolden, EncodesAndDecodes) {
  const auto& texts = texts_.array();
  const auto& cases = golden_.find("cases")->array();
  ASSERT_EQ(texts.size(), cases.size());
  ASSERT_GT(texts.size(), 100U);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string& text = texts[i].string();
    SCOPED_TRACE(testing::PrintToString(text));
    const auto ids = ids_of(cases[i]);
    ASSERT_EQ(tokenizer_->encode(text), ids);
    const auto expected = [&](const char* key) {
      const Json* decoded = cases[i].find(key);
      return decoded == nullptr ? text : decoded->string();
    };
    ASSERT_EQ(tokenizer_->decode(ids), expected("decoded"));
    ASSERT_EQ(tokenizer_->decode(ids, true), expected("decoded_with_special"));
    ASSERT_EQ(decode_stream(*tokenizer_, ids), expected("decoded"));
  }
}

TEST_P(TokenizerGolden, DecodesTornCharacters) {
  for (const Json& entry : golden_.find("torn")->array()) {
    const auto ids = ids_of(entry);
    ASSERT_EQ(tokenizer_->decode(ids), entry.find("decoded")->string());
    ASSERT_EQ(decode_stream(*tokenizer_, ids), entry.find("decoded")->string());
  }
}

// Words met before come from a cache; the answer must not depend on what came before.
TEST_P(TokenizerGolden, RepeatsItself) {
  const auto fresh = load_tokenizer((kFolder / GetParam()).string());
  const auto& texts = texts_.array();
  for (std::size_t i = texts.size(); i-- > 0;)
    ASSERT_EQ(fresh->encode(texts[i].string()), ids_of(golden_.find("cases")->array()[i]));
}

INSTANTIATE_TEST_SUITE_P(, TokenizerGolden,
                         testing::Values("gpt2", "gpt2_prefix_space", "deepseek", "llama3", "edge_cases"));

}  // namespace
}  // namespace lathe
