#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_set>

#include "checkpoint/elements.h"
#include "checkpoint/safetensors.h"
#include "core/checked.h"
#include "core/json.h"

namespace lathe {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxWriteBytes = std::size_t{1} << 30;  // the kernel writes at most 2 GiB a call

std::string_view spelling(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
  }
  return "?";
}

// The length and the header, padded with spaces so that the data begin at a multiple of 8.
std::string header_bytes(const std::vector<TensorSpec>& tensors) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  std::size_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    std::string shape;
    for (const std::int64_t size : tensor.shape) shape += fmt::format("{}{}", shape.empty() ? "" : ",", size);
    const std::size_t end = checked_add(offset, tensor.bytes());
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", Json(tensor.name).dump(),
                        spelling(tensor.dtype), shape, offset, end);
    offset = end;
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  const std::uint64_t length = json.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + json;
}

}  // namespace

std::size_t TensorSpec::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count = checked_mul(count, size);
  return narrow<std::size_t>(count);
}

// A file under way, behind a buffer.
class SafetensorsWriter::Output {
 public:
  explicit Output(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    check(fd_ >= 0, "{}: cannot be written: {}", path.string(), std::strerror(errno));
    buffer_.reserve(kBufferBytes);
  }

  ~Output() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_.c_str());
  }

  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  const std::filesystem::path& path() const { return path_; }

  void append(const void* data, std::size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    if (buffer_.size() + bytes > kBufferBytes) flush();
    if (bytes >= kBufferBytes)
      write_all(from, bytes);
    else
      buffer_.insert(buffer_.end(), from, from + bytes);
  }

  void close() {
    flush();
    const int result = ::close(fd_);
    fd_ = -1;
    check(result == 0, "{}: closing failed: {}", path_.string(), std::strerror(errno));
  }

 private:
  void flush() {
    write_all(buffer_.data(), buffer_.size());
    buffer_.clear();
  }

  void write_all(const std::byte* data, std::size_t bytes) {
    while (bytes > 0) {
      const ssize_t count = ::write(fd_, data, std::min(bytes, kMaxWriteBytes));
      if (count < 0 && errno == EINTR) continue;
      check(count >= 0, "{}: writing failed: {}", path_.string(), std::strerror(errno));
      data += count;
      bytes -= static_cast<std::size_t>(count);
    }
  }

  std::filesystem::path path_;
  int fd_;
  std::vector<std::byte> buffer_;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors)
    : tensors_(std::move(tensors)) {
  std::unordered_set<std::string_view> names;
  for (const TensorSpec& tensor : tensors_) {
    check(tensor.name != "__metadata__" && !tensor.name.empty(), "{}: a tensor cannot be called \"{}\"", path.string(),
          tensor.name);
    check(names.insert(tensor.name).second, "{}: two tensors are called {}", path.string(), tensor.name);
  }
  const std::string header = header_bytes(tensors_);
  check(header.size() - 8 <= kMaxSafetensorsHeader,
        "{}: the header of {} tensors takes {} bytes, at most {} are allowed", path.string(), tensors_.size(),
        header.size() - 8, kMaxSafetensorsHeader);
  output_ = std::make_unique<Output>(path);
  output_->append(header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::write(const TensorView& tensor) {
  check(next_ < tensors_.size(), "{}: all {} tensors are written already", output_->path().string(), tensors_.size());
  const TensorSpec& spec = tensors_[next_];
  const std::span shape(tensor.shape.data(), static_cast<std::size_t>(tensor.rank));
  check(std::ranges::equal(spec.shape, shape), "{}: tensor {} was announced as {}, but is {}", output_->path().string(),
        spec.name, format_shape(spec.shape), tensor.describe());
  std::vector<std::byte> converted;
  for_each_run(tensor, [&](std::byte* run, std::size_t elements) {
    if (tensor.dtype == spec.dtype) return output_->append(run, elements * size_of(spec.dtype));
    const std::size_t chunk = kBufferBytes / sizeof(double);
    converted.resize(kBufferBytes);
    for (std::size_t done = 0; done < elements; done += chunk) {
      const std::size_t count = std::min(chunk, elements - done);
      convert_elements(converted.data(), spec.dtype, run + done * size_of(tensor.dtype), tensor.dtype, count);
      output_->append(converted.data(), count * size_of(spec.dtype));
    }
  });
  ++next_;
}

void SafetensorsWriter::finish() {
  check(next_ == tensors_.size(), "{}: {} of {} tensors were written", output_->path().string(), next_,
        tensors_.size());
  output_->close();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors) {
  std::vector<TensorSpec> specs;
  for (const NamedTensor& tensor : tensors) {
    const auto* shape = tensor.view.shape.data();
    specs.push_back({tensor.name, tensor.view.dtype, {shape, shape + tensor.view.rank}});
  }
  SafetensorsWriter writer(path, std::move(specs));
  for (const NamedTensor& tensor : tensors) writer.write(tensor.view);
  writer.finish();
}

}  // namespace lathe
