#include "train/event_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>

#include "core/error.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFilePrefix = "events.out.tfevents.";

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t kPolynomial = 0x82f63b78U;  // Castagnoli, bits reversed
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? kPolynomial : 0U);
    table[byte] = crc;
  }
  return table;
}

constexpr auto kCrcTable = make_crc_table();

// Field numbers of tensorflow/core/util/event.proto and framework/summary.proto.
namespace field {
constexpr std::uint32_t kEventWallTime = 1;
constexpr std::uint32_t kEventStep = 2;
constexpr std::uint32_t kEventFileVersion = 3;
constexpr std::uint32_t kEventSummary = 5;
constexpr std::uint32_t kEventSessionLog = 7;
constexpr std::uint32_t kSummaryValue = 1;
constexpr std::uint32_t kValueTag = 1;
constexpr std::uint32_t kValueSimple = 2;
constexpr std::uint32_t kSessionStatus = 1;
}  // namespace field

constexpr std::uint64_t kSessionStart = 1;

template <typename T>
void append_little_endian(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>((value >> (8 * i)) & 0xffU);
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7fU) | 0x80U);
  out += static_cast<char>(value);
}

void append_varint_field(std::string& out, std::uint32_t number, std::uint64_t value) {
  append_varint(out, std::uint64_t{number} << 3);
  append_varint(out, value);
}

void append_double_field(std::string& out, std::uint32_t number, double value) {
  append_varint(out, (std::uint64_t{number} << 3) | 1U);
  append_little_endian(out, std::bit_cast<std::uint64_t>(value));
}

void append_bytes_field(std::string& out, std::uint32_t number, std::string_view bytes) {
  append_varint(out, (std::uint64_t{number} << 3) | 2U);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_float_field(std::string& out, std::uint32_t number, float value) {
  append_varint(out, (std::uint64_t{number} << 3) | 5U);
  append_little_endian(out, std::bit_cast<std::uint32_t>(value));
}

std::string event_head(double wall_time, std::int64_t step) {
  std::string event;
  append_double_field(event, field::kEventWallTime, wall_time);
  append_varint_field(event, field::kEventStep, static_cast<std::uint64_t>(step));
  return event;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// TensorBoard reads the files of a folder in the order of their names, so a start within the second of an earlier one,
// or after the clock was set back, takes the second after.
std::int64_t next_file_time(const fs::path& folder) {
  auto time = static_cast<std::int64_t>(now());
  std::error_code error;  // a folder that cannot be read is noticed when the file is opened
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kFilePrefix)) continue;
    std::int64_t taken = 0;
    const auto result = std::from_chars(name.data() + kFilePrefix.size(), name.data() + name.size(), taken);
    if (result.ec == std::errc()) time = std::max(time, taken + 1);
  }
  return time;
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view data) {
  std::uint32_t crc = 0xffffffffU;
  for (const char c : data) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xffU];
  crc = ~crc;
  return std::rotr(crc, 15) + 0xa282ead8U;
}

std::string encode_record(std::string_view data) {
  std::string record;
  append_little_endian(record, std::uint64_t{data.size()});
  append_little_endian(record, masked_crc32c(record));
  record += data;
  append_little_endian(record, masked_crc32c(data));
  return record;
}

std::string encode_scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    append_bytes_field(value, field::kValueTag, scalar.tag);
    append_float_field(value, field::kValueSimple, static_cast<float>(scalar.value));
    append_bytes_field(summary, field::kSummaryValue, value);
  }
  std::string event = event_head(wall_time, step);
  append_bytes_field(event, field::kEventSummary, summary);
  return event;
}

class EventWriter::File {
 public:
  explicit File(fs::path path)
      : path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) {
    check(fd_ >= 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const fs::path& path() const { return path_; }

  void append(std::string_view event) {
    const std::string record = encode_record(event);
    std::string_view rest = record;
    while (!rest.empty()) {
      const ssize_t count = ::write(fd_, rest.data(), rest.size());
      if (count < 0 && errno == EINTR) continue;
      check(count >= 0, "{}: writing failed: {}", path_.string(), std::strerror(errno));
      rest.remove_prefix(static_cast<std::size_t>(count));
    }
  }

 private:
  fs::path path_;
  int fd_;
};

EventWriter::EventWriter(const fs::path& folder, std::int64_t first_step)
    : file_(std::make_unique<File>(folder /
                                   fmt::format("{}{:010}.{}", kFilePrefix, next_file_time(folder), ::getpid()))) {
  std::string version;
  append_double_field(version, field::kEventWallTime, now());
  append_bytes_field(version, field::kEventFileVersion, "brain.Event:2");
  file_->append(version);

  std::string session;
  append_varint_field(session, field::kSessionStatus, kSessionStart);
  std::string start = event_head(now(), first_step);
  append_bytes_field(start, field::kEventSessionLog, session);
  file_->append(start);
}

EventWriter::~EventWriter() = default;
EventWriter::EventWriter(EventWriter&&) noexcept = default;
EventWriter& EventWriter::operator=(EventWriter&&) noexcept = default;

void EventWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  file_->append(encode_scalars(now(), step, scalars));
}

const fs::path& EventWriter::path() const { return file_->path(); }

}  // namespace lathe
