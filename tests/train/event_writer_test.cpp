#include "train/event_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

TEST(EventFile, ChecksumsAreMaskedCrc32c) {
  // crc32c("123456789") = 0xe3069283 (the check value of RFC 3720's polynomial), then the record format's mask.
  EXPECT_EQ(masked_crc32c("123456789"), ((0xe3069283U >> 15) | (0xe3069283U << 17)) + 0xa282ead8U);
  EXPECT_EQ(masked_crc32c(""), 0xa282ead8U);
  EXPECT_EQ(masked_crc32c(std::string(100, 'a')), 0xfdb5a81fU);
}

TEST(EventFile, ARecordIsWhatTensorboardWrites) {
  const std::array<Scalar, 2> scalars{{{"loss", 1.5}, {"learning_rate", -0.1}}};
  // tensorboard 2.x: RecordWriter over Event(wall_time=1234.5, step=300) with these two simple_values.
  EXPECT_EQ(encode_record(encode_scalars(1234.5, 300, scalars)),
            from_hex("31000000000000009d8383e90900000000004a934010ac022a230a0b0a046c6f7373150000c03f0a140a0d"
                     "6c6561726e696e675f7261746515cdccccbd00e51c7d"));
}

// The data of each record; throws if a length or checksum is wrong.
std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint64_t length = 0;
    check(bytes.size() - at >= 16, "a record is cut short");
    std::memcpy(&length, bytes.data() + at, 8);
    check(length <= bytes.size() - at - 16, "a record is cut short");
    const std::string data = bytes.substr(at + 12, length);
    check(bytes.substr(at, 16 + length) == encode_record(data), "a checksum is wrong");
    records.push_back(data);
    at += 16 + length;
  }
  return records;
}

TEST(EventWriter, EveryStepIsInTheFileAtOnce) {
  const TemporaryFolder folder;
  EventWriter writer(folder.path(), 1);
  const auto head = records_of(read_bytes(writer.path()));
  ASSERT_EQ(head.size(), 2U);
  EXPECT_EQ(head[0].substr(9), std::string("\x1a\x0d") + "brain.Event:2");
  EXPECT_EQ(head[1].substr(9), std::string("\x10\x01\x3a\x02\x08\x01"));  // step 1, session log: start
  for (std::int64_t step = 1; step <= 3; ++step) {
    const std::array<Scalar, 1> scalars{{{"loss", 0.5}}};
    writer.write(step, scalars);
    const auto records = records_of(read_bytes(writer.path()));
    ASSERT_EQ(records.size(), 2U + static_cast<std::size_t>(step));
    EXPECT_EQ(records.back()[10], static_cast<char>(step));
  }
}

TEST(EventWriter, EachStartIsReadAfterTheOnesBefore) {
  const TemporaryFolder folder;
  write_bytes(folder / "events.out.tfevents.9999999990.1", "from a clock that ran ahead");
  std::vector<std::string> names{"events.out.tfevents.9999999990.1"};
  for (int start = 0; start < 3; ++start) names.push_back(EventWriter(folder.path(), 1).path().filename().string());
  EXPECT_TRUE(std::ranges::is_sorted(names));
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(EventWriter, SaysWhatItCannotWrite) {
  const TemporaryFolder folder;
  EXPECT_NE(message_of<Error>([&] { EventWriter(folder / "none", 1); }).find("none"), std::string::npos);
}

}  // namespace
}  // namespace lathe
