#include "checkpoint/manifest.h"

#include <gtest/gtest.h>

#include "checkpoint/checksum.h"
#include "core/json.h"
#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

TEST(Checksum, IsXxh3) {
  const TemporaryFolder folder;
  write_bytes(folder / "empty", "");
  write_bytes(folder / "abc", "abc");
  EXPECT_EQ(checksum_of(folder / "empty").xxh3, 0x2d06800538d394c2U);  // of the format's specification
  EXPECT_EQ(checksum_of(folder / "abc").xxh3, 0x78af5f94892f3950U);
  EXPECT_EQ(checksum_of(folder / "abc").bytes, 3U);
  std::string large(3'000'001, 'x');
  write_bytes(folder / "large", large);
  const auto before = checksum_of(folder / "large");
  EXPECT_EQ(before.bytes, large.size());
  large[2'999'999] = 'y';
  write_bytes(folder / "large", large);
  EXPECT_NE(checksum_of(folder / "large").xxh3, before.xxh3);
  EXPECT_EQ(message_of<Error>([&] { checksum_of(folder / "none"); }),
            (folder / "none").string() + ": cannot be read: No such file or directory");
}

void fill(const TemporaryFolder& folder) {
  write_bytes(folder / "abc", "abc");
  write_bytes(folder / "empty", "");
  fs::create_directory(folder / "sub");
  write_bytes(folder / "sub/large", std::string(2'000'000, 'x'));
  write_manifest(folder.path());
}

std::string verdict(const fs::path& folder, VerifyDepth depth = VerifyDepth::checksums) {
  return describe(verify_manifest(folder, depth));
}

TEST(Manifest, ListsSizeAndChecksumOfEveryFile) {
  const TemporaryFolder folder;
  fill(folder);
  const Json manifest = Json::parse(read_bytes(folder / "manifest.json"), "manifest");
  const Json* files = manifest.find("files");
  ASSERT_NE(files, nullptr);
  ASSERT_EQ(files->object().size(), 3U);
  EXPECT_EQ(files->find("abc")->dump(), R"({"size":3,"xxh3":"78af5f94892f3950"})");
  EXPECT_EQ(files->find("empty")->dump(), R"({"size":0,"xxh3":"2d06800538d394c2"})");
  EXPECT_EQ(files->find("sub/large")->find("size")->integer(), 2'000'000);
  const std::string before = read_bytes(folder / "manifest.json");
  write_manifest(folder.path());
  EXPECT_EQ(read_bytes(folder / "manifest.json"), before);
}

TEST(Manifest, NamesEveryBadFile) {
  const TemporaryFolder folder;
  fill(folder);
  EXPECT_TRUE(verify_manifest(folder.path()).empty());
  write_bytes(folder / "unlisted", "x");
  EXPECT_EQ(verdict(folder.path()), "whole");

  write_bytes(folder / "abc", "abd");
  EXPECT_EQ(verdict(folder.path(), VerifyDepth::sizes), "whole");
  EXPECT_TRUE(verdict(folder.path()).starts_with("abc: checksum ")) << verdict(folder.path());
  EXPECT_TRUE(verdict(folder.path()).ends_with(", the manifest says 78af5f94892f3950")) << verdict(folder.path());
  write_bytes(folder / "empty", "12");
  fs::remove(folder / "sub/large");
  const auto bad = verify_manifest(folder.path());
  ASSERT_EQ(bad.size(), 3U);
  EXPECT_EQ(bad[1].name, "empty");
  EXPECT_EQ(bad[1].reason, "size 2, the manifest says 0");
  EXPECT_EQ(bad[2].name, "sub/large");
  EXPECT_EQ(bad[2].reason, "missing");
  EXPECT_TRUE(describe(bad).ends_with(" (and 2 more bad files)"));
  fs::create_directory(folder / "sub/large");
  EXPECT_EQ(verify_manifest(folder.path()).at(2).reason, "not a regular file");
}

TEST(Manifest, EveryChangedBitIsSeen) {
  const TemporaryFolder folder;
  const std::string content(24, 'a');
  write_bytes(folder / "f", content);
  write_manifest(folder.path());
  for (std::size_t bit = 0; bit < content.size() * 8; ++bit) {
    std::string changed = content;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    write_bytes(folder / "f", changed);
    ASSERT_EQ(verify_manifest(folder.path()).size(), 1U) << bit;
  }
}

TEST(Manifest, MalformedOnesAreTheBadFile) {
  const TemporaryFolder folder;
  fill(folder);
  const std::string good = read_bytes(folder / "manifest.json");
  const auto with = [&](const std::string& text) {
    write_bytes(folder / "manifest.json", text);
    return verdict(folder.path());
  };
  EXPECT_EQ(with("{}"), "manifest.json: malformed: no object \"files\"");
  EXPECT_EQ(with(R"({"files":[]})"), "manifest.json: malformed: no object \"files\"");
  EXPECT_EQ(with(R"({"files":{}})"), "manifest.json: malformed: it lists no files");
  EXPECT_EQ(with(R"({"files":{"abc":{"xxh3":"78af5f94892f3950"}}})"),
            "manifest.json: malformed: no valid size for abc");
  for (const char* size : {"-3", "3.0", "\"3\"", "null"})
    EXPECT_EQ(with(fmt::format(R"({{"files":{{"abc":{{"size":{},"xxh3":"78af5f94892f3950"}}}}}})", size)),
              "manifest.json: malformed: no valid size for abc");
  for (const char* sum : {"\"78af5f94892f395\"", "\"78af5f94892f395g\"", "78", "\" 8af5f94892f3950\""})
    EXPECT_EQ(with(fmt::format(R"({{"files":{{"abc":{{"size":3,"xxh3":{}}}}}}})", sum)),
              "manifest.json: malformed: no valid xxh3 checksum for abc");
  for (const char* name : {"../abc", "/abc", "", "sub/../../abc", ".."})
    EXPECT_EQ(with(fmt::format(R"({{"files":{{"{}":{{"size":3,"xxh3":"78af5f94892f3950"}}}}}})", name)),
              fmt::format("manifest.json: malformed: \"{}\" is not a file inside the folder", name));
  for (std::size_t length = 0; length + 2 < good.size(); length += 7)
    EXPECT_TRUE(with(good.substr(0, length)).starts_with("manifest.json: malformed: ")) << length;
  fs::remove(folder / "manifest.json");
  EXPECT_EQ(verdict(folder.path()), "manifest.json: missing");
}

}  // namespace
}  // namespace lathe
