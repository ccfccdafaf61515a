#include "data/token_file.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <limits>
#include <numeric>

#include "data/data_testing.h"

namespace lathe {
namespace {

// An index and its tokens, each field free to be wrong.
struct Image {
  std::string magic{"MMIDIDX\0\0", 9};
  std::uint64_t version = 1;
  std::uint8_t type = 8;
  std::uint64_t sequences = 3;
  std::uint64_t indices = 3;
  std::vector<std::int32_t> sizes{2, 0, 3};
  std::vector<std::int64_t> pointers{0, 4, 4};
  std::vector<std::int64_t> documents{0, 2, 3};
  std::string tokens = std::string("\1\0\2\0\3\0\4\0\5\0", 10);
  std::string rest;

  void write(const std::filesystem::path& prefix) const {
    std::string idx = magic;
    const auto put = [&](const auto& value) { idx.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
    put(version);
    put(type);
    put(sequences);
    put(indices);
    for (const auto size : sizes) put(size);
    for (const auto pointer : pointers) put(pointer);
    for (const auto document : documents) put(document);
    write_bytes(idx_path(prefix), idx + rest);
    write_bytes(bin_path(prefix), tokens);
  }
};

std::vector<std::int32_t> read_all(const TokenFile& file) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()), -7);
  file.read(0, tokens);
  return tokens;
}

TEST(TokenFile, ReadsSequencesAndDocuments) {
  const TemporaryFolder folder;
  Image().write(folder / "a");
  const TokenFile file(folder / "a");
  EXPECT_EQ(file.tokens(), 5);
  EXPECT_EQ(file.documents(), 2);
  EXPECT_EQ(file.type(), TokenType::u16);
  EXPECT_EQ(read_all(file), (std::vector<std::int32_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(file.document_begin(0), 0);
  EXPECT_EQ(file.document_begin(1), 2);
  EXPECT_EQ(file.document_begin(2), 5);
  EXPECT_EQ(file.max_token(), 5);
}

TEST(TokenFile, ReadsEveryTokenType) {
  const TemporaryFolder folder;
  const auto check_type = [&](auto sample, std::uint8_t code) {
    using T = decltype(sample);
    Image image;
    image.type = code;
    image.tokens.clear();
    for (const int token : {7, 0, 100, 3, 127}) {
      const auto value = static_cast<T>(token);
      image.tokens.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    image.pointers = {0, 2 * sizeof(T), 2 * sizeof(T)};
    image.write(folder / "typed");
    EXPECT_EQ(read_all(TokenFile(folder / "typed")), (std::vector<std::int32_t>{7, 0, 100, 3, 127})) << int{code};
  };
  check_type(std::uint8_t{}, 1);
  check_type(std::int8_t{}, 2);
  check_type(std::int16_t{}, 3);
  check_type(std::int32_t{}, 4);
  check_type(std::int64_t{}, 5);
  check_type(std::uint16_t{}, 8);
}

TEST(TokenFile, RefusesEveryContradiction) {
  const TemporaryFolder folder;
  const auto refuse_image = [&](auto change, std::initializer_list<std::string_view> parts) {
    Image image;
    change(image);
    image.write(folder / "bad");
    expect_refused([&] { const TokenFile file(folder / "bad"); }, parts);
  };
  const auto kHuge = std::uint64_t{1} << 63;
  refuse_image([](Image& i) { i.magic[0] = 'X'; }, {"bad.idx", "MMIDIDX"});
  refuse_image([](Image& i) { i.version = 2; }, {"bad.idx", "version 2"});
  refuse_image([](Image& i) { i.type = 6; }, {"float64", "6"});
  refuse_image([](Image& i) { i.type = 7; }, {"float32", "7"});
  refuse_image([](Image& i) { i.type = 0; }, {"token type 0"});
  refuse_image([](Image& i) { i.type = 9; }, {"token type 9"});
  for (const std::uint64_t count :
       {kHuge, kHuge - 1, ~std::uint64_t{0}, std::uint64_t{4}, std::uint64_t{2}, (~std::uint64_t{0}) / 12 + 3}) {
    refuse_image([&](Image& i) { i.sequences = count; }, {"bad.idx", fmt::format("{} sequences", count)});
    refuse_image([&](Image& i) { i.indices = count; }, {"bad.idx", fmt::format("{} document indices", count)});
  }
  refuse_image([](Image& i) { i.rest = "x"; }, {"bad.idx", "bytes follow"});
  refuse_image([](Image& i) { i.sizes[0] = -2; }, {"sequence 0 has -2 tokens"});
  refuse_image([](Image& i) { i.sizes[2] = std::numeric_limits<std::int32_t>::max(); }, {"sequence 2", "5 tokens"});
  refuse_image([](Image& i) { i.sizes[2] = 2; }, {"4 tokens together", "holds 5"});
  refuse_image([](Image& i) { i.pointers[1] = 2; }, {"sequence 1 begins at byte 2"});
  refuse_image([](Image& i) { i.pointers[1] = 3; }, {"sequence 1 begins at byte 3"});
  refuse_image([](Image& i) { i.pointers[0] = -4; }, {"sequence 0 begins at byte -4"});
  refuse_image([](Image& i) { i.pointers[2] = std::numeric_limits<std::int64_t>::max(); }, {"sequence 2 begins"});
  refuse_image([](Image& i) { i.documents[0] = 1; }, {"document index 0 is 1"});
  refuse_image([](Image& i) { i.documents[1] = -1; }, {"document index 1 is -1"});
  refuse_image([](Image& i) { i.documents[1] = 4; }, {"document index 2 is 3, below the 4"});
  refuse_image([](Image& i) { i.documents[2] = 2; }, {"last document index is 2", "3"});
  refuse_image([](Image& i) { i.tokens += '\0'; }, {"bad.bin", "11 bytes"});
  refuse_image([](Image& i) { i.tokens.resize(8); }, {"sequence 2", "4 tokens"});
  refuse_image([](Image& i) { i.tokens += "ab"; }, {"5 tokens together", "holds 6"});
  refuse_image(
      [](Image& i) {
        i.sequences = i.indices = 0;
        i.sizes.clear();
        i.pointers.clear();
        i.documents.clear();
        i.tokens.clear();
      },
      {"no document index"});
}

TEST(TokenFile, RefusesEveryTruncationOfTheIndex) {
  const TemporaryFolder folder;
  Image().write(folder / "a");
  const std::string whole = read_bytes(folder / "a.idx");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_bytes(folder / "a.idx", whole.substr(0, size));
    expect_refused([&] { const TokenFile file(folder / "a"); }, {"a.idx"});
  }
  std::filesystem::remove(folder / "a.bin");
  expect_refused([&] { const TokenFile file(folder / "a"); }, {"a.bin"});
}

TEST(TokenFile, FindsTheFirstBadId) {
  const TemporaryFolder folder;
  // Longer than the pieces that threads scan.
  std::vector<std::int32_t> tokens(2'500'001, 9);
  tokens[2'200'000] = 300;
  tokens[2'200'001] = 12;
  tokens[1'048'576] = 11;
  write_documents(folder / "a", {tokens}, TokenType::i32);
  const TokenFile file(folder / "a");
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    EXPECT_EQ(file.max_token(), 300);
    file.require_ids_below(301);
    expect_refused([&] { file.require_ids_below(300); }, {"a.bin", "token 2200000", "id 300", "vocab_size 300"});
    expect_refused([&] { file.require_ids_below(11); }, {"token 1048576", "id 11", "0 to 10"});
  }
  tokens[5] = -1;
  write_documents(folder / "a", {tokens}, TokenType::i32);
  expect_refused([&] { TokenFile(folder / "a").require_ids_below(1000); }, {"token 5", "id -1"});
}

TEST(TokenFile, RefusesIdsOutside32Bits) {
  const TemporaryFolder folder;
  Image image;
  image.type = 5;
  image.tokens.assign(40, '\0');
  image.tokens[39] = 1;
  image.pointers = {0, 16, 16};
  image.write(folder / "a");
  const TokenFile file(folder / "a");
  expect_refused([&] { read_all(file); }, {"token 4", "72057594037927936"});
  expect_refused([&] { file.require_ids_below(258); }, {"token 4", "72057594037927936"});
}

TEST(TokenFile, FindsDocumentStarts) {
  const TemporaryFolder folder;
  const std::vector<std::vector<std::int32_t>> documents{{}, {1, 2}, {}, {}, {3}, {4, 5, 6}, {}};
  write_documents(folder / "a", documents);
  const TokenFile file(folder / "a");
  EXPECT_EQ(file.documents(), 7);
  const auto starts = [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> found;
    file.find_document_starts(begin, end, found);
    return found;
  };
  EXPECT_EQ(starts(0, 6), (std::vector<std::int64_t>{0, 2, 3}));
  EXPECT_EQ(starts(1, 3), (std::vector<std::int64_t>{2}));
  EXPECT_EQ(starts(2, 3), (std::vector<std::int64_t>{2}));
  EXPECT_EQ(starts(3, 3), (std::vector<std::int64_t>{}));
  EXPECT_EQ(starts(4, 6), (std::vector<std::int64_t>{}));
}

TEST(TokenFileWriter, WritesMegatronsLayout) {
  const TemporaryFolder folder;
  write_documents(folder / "x.y", {{1, 2}, {}, {300}});
  EXPECT_EQ(read_bytes(folder / "x.y.bin"), std::string("\1\0\2\0\x2c\1", 6));
  std::string idx("MMIDIDX\0\0\1\0\0\0\0\0\0\0\x08\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 34);
  idx += std::string("\2\0\0\0\0\0\0\0\1\0\0\0", 12);
  for (const int number : {0, 4, 4, /* document indices */ 0, 1, 2, 3})
    idx += static_cast<char>(number) + std::string(7, '\0');
  EXPECT_EQ(read_bytes(folder / "x.y.idx"), idx);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

TEST(TokenFileWriter, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  std::vector<std::int32_t> large(700'001);
  std::iota(large.begin(), large.end(), 0);
  write_documents(folder / "a", {large, {5}}, TokenType::i32);
  large.push_back(5);
  EXPECT_EQ(read_all(TokenFile(folder / "a")), large);
  write_documents(folder / "empty", {});
  EXPECT_EQ(TokenFile(folder / "empty").tokens(), 0);
  EXPECT_EQ(TokenFile(folder / "empty").max_token(), -1);
  EXPECT_THROW(write_documents(folder / "b", {{65536}}), Error);
  EXPECT_EQ(token_type_for(65499), TokenType::u16);
  EXPECT_EQ(token_type_for(65500), TokenType::i32);
}

TEST(TokenFileWriter, GoesOnFromAnEarlierSync) {
  const TemporaryFolder folder;
  TokenFileWriter::Position synced;
  {
    TokenFileWriter writer(folder / "a", TokenType::u16);
    writer.append_document(std::vector<std::int32_t>{1, 2});
    synced = writer.sync();
    writer.append_document(std::vector<std::int32_t>{9, 9, 9});
    writer.sync();
    expect_refused([&] { TokenFileWriter second(folder / "a", TokenType::u16); }, {"a.bin.partial", "another process"});
  }
  {
    TokenFileWriter writer(folder / "a", TokenType::u16);
    ASSERT_TRUE(writer.start_at(synced));
    writer.append_document(std::vector<std::int32_t>{3});
    writer.finish();
  }
  write_documents(folder / "b", {{1, 2}, {3}});
  EXPECT_EQ(read_bytes(folder / "a.bin"), read_bytes(folder / "b.bin"));
  EXPECT_EQ(read_bytes(folder / "a.idx"), read_bytes(folder / "b.idx"));
  TokenFileWriter writer(folder / "c", TokenType::u16);
  EXPECT_FALSE(writer.start_at(synced));
  EXPECT_EQ(writer.position().tokens, 0);
}

}  // namespace
}  // namespace lathe
