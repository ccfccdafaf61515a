// TensorBoard event files: length-framed protobuf records with masked CRC32C checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lathe {

struct Scalar {
  std::string_view tag;
  double value = 0;  // stored as a float
};

// The CRC32C (Castagnoli) of `data`, turned and offset as the record format wants it.
std::uint32_t masked_crc32c(std::string_view data);
// A record: 8 bytes of length, its checksum, the data, their checksum.
std::string encode_record(std::string_view data);
// A protobuf Event with a summary of scalars.
std::string encode_scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars);

// One event file, new for each start of a run. Move-only.
class EventWriter {
 public:
  // Opens the file that TensorBoard reads last in `folder`; it says that what earlier files hold for `first_step` and
  // later is void. Throws Error naming the file and the system's reason.
  EventWriter(const std::filesystem::path& folder, std::int64_t first_step);
  ~EventWriter();
  EventWriter(EventWriter&&) noexcept;
  EventWriter& operator=(EventWriter&&) noexcept;

  // Adds the values of a step; they are in the file when this returns.
  void write(std::int64_t step, std::span<const Scalar> scalars);

  const std::filesystem::path& path() const;

 private:
  class File;
  std::unique_ptr<File> file_;
};

}  // namespace lathe
