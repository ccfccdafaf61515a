#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "checkpoint/elements.h"
#include "checkpoint/json_members.h"
#include "checkpoint/safetensors.h"
#include "core/json.h"

namespace lathe {
namespace {

constexpr std::size_t kMaxEntryBytes = 16 << 10;  // one tensor's dtype, shape and offsets
constexpr std::size_t kMaxMetadataBytes = std::size_t{4} << 20;

struct DTypeSpelling {
  std::string_view name;
  std::size_t bits;
  std::optional<DType> dtype;
};

// Every type of the format, so that a file with tensors that are never read is still checked as a whole.
constexpr std::array<DTypeSpelling, 20> kSpellings{{
    {"F64", 64, DType::f64},      {"F32", 32, DType::f32},      {"BF16", 16, DType::bf16},
    {"I64", 64, DType::i64},      {"I32", 32, DType::i32},      {"F16", 16, std::nullopt},
    {"F8_E4M3", 8, std::nullopt}, {"F8_E5M2", 8, std::nullopt}, {"F8_E8M0", 8, std::nullopt},
    {"F6_E2M3", 6, std::nullopt}, {"F6_E3M2", 6, std::nullopt}, {"F4", 4, std::nullopt},
    {"U8", 8, std::nullopt},      {"I8", 8, std::nullopt},      {"BOOL", 8, std::nullopt},
    {"U16", 16, std::nullopt},    {"I16", 16, std::nullopt},    {"U32", 32, std::nullopt},
    {"U64", 64, std::nullopt},    {"C64", 64, std::nullopt},
}};

const DTypeSpelling* find_spelling(std::string_view name) {
  const auto it = std::ranges::find(kSpellings, name, &DTypeSpelling::name);
  return it == kSpellings.end() ? nullptr : &*it;
}

// The text of the header; the data begin where it ends.
std::string_view header_text(const MappedFile& file) {
  const auto bytes = file.bytes();
  const std::string path = file.path().string();
  require(bytes.size() >= 8, "{}: {} bytes, a safetensors file has at least 8", path, bytes.size());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  require(length <= kMaxSafetensorsHeader, "{}: header of {} bytes, at most {} are allowed", path, length,
          kMaxSafetensorsHeader);
  require(length <= bytes.size() - 8, "{}: header of {} bytes, but only {} follow: truncated?", path, length,
          bytes.size() - 8);
  return {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length)};
}

// Whole numbers >= 0 from a list.
std::vector<std::int64_t> parse_sizes(const Json& list, const std::string& where, std::string_view field) {
  require(list.is_array(), "{}: {} must be a list of whole numbers, found {}", where, field, list.type_name());
  std::vector<std::int64_t> sizes;
  for (const Json& item : list.array()) {
    require(item.is_integer(), "{}: {} must hold whole numbers below 2^63, found {}", where, field, item.dump());
    require(item.integer() >= 0, "{}: {} holds {}, negative numbers are not allowed", where, field, item.integer());
    sizes.push_back(item.integer());
  }
  return sizes;
}

std::size_t stored_bytes(const std::vector<std::int64_t>& shape, std::size_t bits, const std::string& where) {
  std::size_t total = bits;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(total, static_cast<std::size_t>(size), &total))
      refuse("{}: shape {} has more elements than fit in 64 bits", where, format_shape(shape));
  require(total % 8 == 0, "{}: shape {} takes {} bits, no whole bytes", where, format_shape(shape), total);
  return total / 8;
}

StoredTensor parse_entry(std::string name, std::string_view text, const std::string& path, std::size_t data_begin,
                         std::size_t data_bytes) {
  const std::string where = fmt::format("{}: tensor {}", path, name);
  require(text.size() <= kMaxEntryBytes, "{}: header entry of {} bytes, at most {} are allowed", where, text.size(),
          kMaxEntryBytes);
  const Json entry = Json::parse(text, where);
  require(entry.is_object(), "{}: header entry must be an object, found {}", where, entry.type_name());
  for (const auto& member : entry.object())
    require(member.key == "dtype" || member.key == "shape" || member.key == "data_offsets",
            "{}: unknown field \"{}\" (allowed: dtype, shape, data_offsets)", where, member.key);
  const Json* dtype = entry.find("dtype");
  const Json* shape = entry.find("shape");
  const Json* offsets = entry.find("data_offsets");
  require(dtype != nullptr && shape != nullptr && offsets != nullptr, "{}: {} is missing", where,
          dtype == nullptr   ? "dtype"
          : shape == nullptr ? "shape"
                             : "data_offsets");
  require(dtype->is_string(), "{}: dtype must be a string, found {}", where, dtype->type_name());
  const DTypeSpelling* spelling = find_spelling(dtype->string());
  require(spelling != nullptr, "{}: unknown dtype {}", where, dtype->dump());

  StoredTensor tensor;
  tensor.dtype = dtype->string();
  tensor.shape = parse_sizes(*shape, where, "shape");
  tensor.bytes = stored_bytes(tensor.shape, spelling->bits, where);
  const auto range = parse_sizes(*offsets, where, "data_offsets");
  require(range.size() == 2, "{}: data_offsets must hold 2 numbers, found {}", where, range.size());
  const auto begin = static_cast<std::size_t>(range[0]);
  const auto end = static_cast<std::size_t>(range[1]);
  require(begin <= end && end <= data_bytes,
          "{}: data_offsets [{}, {}] are not a range inside the file's {} bytes of data", where, begin, end,
          data_bytes);
  require(end - begin == tensor.bytes, "{}: data_offsets give {} bytes, but {} {} takes {}", where, end - begin,
          tensor.dtype, format_shape(tensor.shape), tensor.bytes);
  tensor.begin = data_begin + begin;
  tensor.name = std::move(name);
  return tensor;
}

void check_metadata(std::string_view text, const std::string& path) {
  const std::string where = path + ": __metadata__";
  require(text.size() <= kMaxMetadataBytes, "{}: {} bytes, at most {} are allowed", where, text.size(),
          kMaxMetadataBytes);
  const Json metadata = Json::parse(text, where);
  require(metadata.is_object(), "{}: must be an object, found {}", where, metadata.type_name());
  for (const auto& [key, value] : metadata.object())
    require(value.is_string(), "{}: every value must be a string, found {}", where, value.type_name());
}

// Throws unless the tensors, sorted by offset, cover the data without overlap or gap.
void check_cover(const std::vector<StoredTensor>& tensors, const std::string& path, std::size_t data_begin,
                 std::size_t file_size) {
  std::size_t covered = data_begin;
  const StoredTensor* before = nullptr;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.begin < covered)
      refuse("{}: tensors {} and {} overlap: {} bytes are used twice", path, before->name, tensor.name,
             covered - tensor.begin);
    if (tensor.begin > covered)
      refuse("{}: {} bytes before tensor {} belong to no tensor", path, tensor.begin - covered, tensor.name);
    covered += tensor.bytes;
    before = &tensor;
  }
  require(covered == file_size, "{}: the last {} bytes belong to no tensor", path, file_size - covered);
}

}  // namespace

std::optional<DType> StoredTensor::readable_dtype() const {
  const DTypeSpelling* spelling = find_spelling(dtype);
  return spelling == nullptr ? std::nullopt : spelling->dtype;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::string_view header = header_text(file_);
  const std::string name = path.string();
  const std::size_t data_begin = 8 + header.size();
  const std::size_t file_size = file_.bytes().size();
  bool has_metadata = false;
  for_each_member(header, name + ": header", [&](std::string key, std::string_view value) {
    if (key == "__metadata__") {
      require(!has_metadata, "{}: __metadata__ stands twice in the header", name);
      has_metadata = true;
      check_metadata(value, name);
      return;
    }
    tensors_.push_back(parse_entry(std::move(key), value, name, data_begin, file_size - data_begin));
  });
  std::ranges::stable_sort(tensors_, {}, [](const StoredTensor& t) { return std::pair(t.begin, t.bytes); });
  index_.reserve(tensors_.size());
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    require(index_.emplace(tensors_[i].name, i).second, "{}: tensor {} stands twice in the header", name,
            tensors_[i].name);
  check_cover(tensors_, name, data_begin, file_size);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.bytes);
}

void SafetensorsFile::require_readable(const StoredTensor& tensor, DType dtype,
                                       std::span<const std::int64_t> shape) const {
  const auto stored = tensor.readable_dtype();
  require(stored.has_value(), "{}: tensor {} is {}, which is not supported (allowed: F64, F32, BF16, I64, I32)",
          path().string(), tensor.name, tensor.dtype);
  require(std::ranges::equal(tensor.shape, shape), "{}: tensor {} has shape {}, expected {}", path().string(),
          tensor.name, format_shape(tensor.shape), format_shape(shape));
  require(is_convertible(*stored, dtype), "{}: tensor {} is {}, which cannot be read as {}", path().string(),
          tensor.name, tensor.dtype, name_of(dtype));
}

void SafetensorsFile::read_into(const StoredTensor& tensor, const TensorView& out) const {
  require_readable(tensor, out.dtype, std::span(out.shape.data(), static_cast<std::size_t>(out.rank)));
  const DType stored = *tensor.readable_dtype();
  const std::byte* from = bytes(tensor).data();
  for_each_run(out, [&](std::byte* run, std::size_t elements) {
    convert_elements(run, out.dtype, from, stored, elements);
    from += elements * size_of(stored);
  });
}

void SafetensorsFile::read_into(std::string_view name, const TensorView& out) const {
  const StoredTensor* tensor = find(name);
  require(tensor != nullptr, "{}: tensor {} is missing", path().string(), name);
  read_into(*tensor, out);
}

}  // namespace lathe
