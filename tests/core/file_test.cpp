#include "core/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

TEST(MappedFile, ShowsTheBytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "f", "abc");
  MappedFile file(folder / "f");
  ASSERT_EQ(file.bytes().size(), 3U);
  EXPECT_EQ(static_cast<char>(file.bytes()[2]), 'c');
  EXPECT_EQ(file.path(), folder / "f");
  MappedFile moved(std::move(file));
  EXPECT_EQ(static_cast<char>(moved.bytes()[0]), 'a');
  write_bytes(folder / "empty", "");
  MappedFile empty(folder / "empty");
  EXPECT_TRUE(empty.bytes().empty());
  empty = std::move(moved);
  EXPECT_EQ(empty.bytes().size(), 3U);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { MappedFile file(folder / "none"); }),
            (folder / "none").string() + ": cannot be read: No such file or directory");
  EXPECT_EQ(message_of([&] { MappedFile file(folder.path()); }), folder.path().string() + ": not a regular file");
  EXPECT_EQ(message_of([&] { MappedFile file("/dev/null"); }), "/dev/null: not a regular file");
}

TEST(ReadTextFile, ReadsUpToItsLimit) {
  const TemporaryFolder folder;
  const std::string text(100'000, 'x');
  write_bytes(folder / "f", text);
  EXPECT_EQ(read_text_file(folder / "f"), text);
  EXPECT_EQ(read_text_file(folder / "f", 100'000), text);
  EXPECT_EQ(message_of([&] { read_text_file(folder / "f", 99'999); }),
            (folder / "f").string() + ": 100000 bytes, at most 99999 are read");
  EXPECT_NE(message_of([&] { read_text_file(folder / "none"); }), "nothing was thrown");
}

TEST(WriteFileDurably, ReplacesTheContent) {
  const TemporaryFolder folder;
  write_file_durably(folder / "f", "a longer text");
  write_file_durably(folder / "f", "short");
  EXPECT_EQ(read_bytes(folder / "f"), "short");
  sync_directory(folder.path());
  EXPECT_EQ(message_of<Error>([&] { write_file_durably(folder / "no/f", "x"); }),
            (folder / "no/f").string() + ": cannot be written: No such file or directory");
  EXPECT_NE(message_of<Error>([&] { sync_directory(folder / "none"); }), "nothing was thrown");
}

TEST(RequireWritableDirectory, JudgesTheNearestParentAndMakesNothing) {
  const TemporaryFolder folder;
  require_writable_directory(folder.path());
  require_writable_directory(folder / "a/b/c");
  EXPECT_FALSE(fs::exists(folder / "a"));
  write_bytes(folder / "f", "x");
  const std::string inside = (folder / "f/x").string();
  EXPECT_EQ(message_of([&] { require_writable_directory(inside); }),
            inside + ": cannot be made: " + (folder / "f").string() + " is not a folder");
  if (::geteuid() == 0) return;  // the superuser may write anywhere
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_NE(message_of([&] { require_writable_directory(folder / "a"); }), "nothing was thrown");
  fs::permissions(folder.path(), fs::perms::owner_all);
}

}  // namespace
}  // namespace lathe
