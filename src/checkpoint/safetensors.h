// The safetensors format: a 64-bit length, a JSON header of that length, and the tensors' bytes without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "core/tensor_view.h"

namespace lathe {

inline constexpr std::size_t kMaxSafetensorsHeader = 100'000'000;  // the format's own limit

// What a file says of one tensor.
struct StoredTensor {
  std::string name;
  std::string dtype;  // as the file spells it: "F32", "BF16", "F16", ...
  std::vector<std::int64_t> shape;
  std::size_t begin = 0;  // in bytes from the start of the file; no alignment is promised
  std::size_t bytes = 0;

  // The dtype if it is one that is read here (F64, F32, BF16, I64, I32).
  std::optional<DType> readable_dtype() const;
};

// A file mapped for reading; every offset and size in it has been checked. Move-only.
class SafetensorsFile {
 public:
  // Throws InputError naming the file, the tensor and the value that is wrong.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  // In the order of their bytes.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const;

  std::span<const std::byte> bytes(const StoredTensor& tensor) const;

  // Throws InputError unless `tensor` can be read into a tensor of that dtype and shape.
  void require_readable(const StoredTensor& tensor, DType dtype, std::span<const std::int64_t> shape) const;

  // Copies a tensor to `out`, converting between floating types; out's shape must be the stored one, its last
  // dimension contiguous. Throws InputError as require_readable.
  void read_into(const StoredTensor& tensor, const TensorView& out) const;
  void read_into(std::string_view name, const TensorView& out) const;

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;  // views of the names in tensors_
};

// What is to be written under a name.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;

  std::size_t elements() const;
  std::size_t bytes() const { return elements() * size_of(dtype); }
};

// Writes a file from first to last byte; the bytes are a function of the tensors alone. A file that was not finished
// is removed. Move-only.
class SafetensorsWriter {
 public:
  // Writes the header; `tensors` is the order in which their elements follow.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors);
  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;

  // The next tensor's elements, of the shape announced, converted to the dtype announced.
  void write(const TensorView& tensor);
  // Throws Error if tensors are missing or the file cannot be written. Does not fsync.
  void finish();

 private:
  class Output;
  std::unique_ptr<Output> output_;
  std::vector<TensorSpec> tensors_;
  std::size_t next_ = 0;
};

// A file of tensors that are all in the CPU's memory, each in its own dtype.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors);

}  // namespace lathe
