#include "checkpoint/tensor_folder.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "checkpoint/json_members.h"
#include "core/checked.h"
#include "core/json.h"

namespace lathe {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kNamesShown = 20;

// "a, b, c", of more than 20 the first 20 and the count.
std::string join_names(std::span<const std::string> names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesShown); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", names[i]);
  if (names.size() > kNamesShown) text += fmt::format(", ... ({} in all)", names.size());
  return text;
}

std::string_view plural(std::size_t count) { return count == 1 ? "" : "s"; }

void require_file_name(const std::string& shard, const std::string& source) {
  require(shard.ends_with(".safetensors") && shard.find('/') == std::string::npos,
          "{}: weight_map names {}, allowed is a .safetensors file in the same folder", source, Json(shard).dump());
}

// Tensor name -> shard's file name.
std::unordered_map<std::string, std::string> read_weight_map(const fs::path& path) {
  const std::string text = read_text_file(path, kMaxIndexBytes);
  const std::string source = path.string();
  std::unordered_map<std::string, std::string> map;
  bool found = false;
  for_each_member(text, source, [&](const std::string& key, std::string_view value) {
    if (key != "weight_map") return;
    require(!found, "{}: weight_map stands twice", source);
    found = true;
    for_each_member(value, source + ": weight_map", [&](const std::string& tensor, std::string_view file) {
      require(file.size() <= kMaxNameBytes,
              "{}: weight_map gives a file name of {} bytes for {}, at most {} are allowed", source, file.size(),
              tensor, kMaxNameBytes);
      const Json shard = Json::parse(file, source + ": weight_map");
      require(shard.is_string(), "{}: weight_map must give a file name for {}, found {}", source, tensor,
              shard.type_name());
      require_file_name(shard.string(), source);
      require(map.emplace(tensor, shard.string()).second, "{}: tensor {} stands twice in weight_map", source, tensor);
    });
  });
  require(found, "{}: weight_map is missing", source);
  return map;
}

}  // namespace

bool has_tensor_files(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / kSingleFile, error) || fs::is_regular_file(folder / kIndexFile, error);
}

TensorFolder::TensorFolder(const fs::path& folder) : path_(folder) {
  std::error_code error;
  if (fs::exists(folder / kSingleFile, error)) {
    add_all(files_.emplace(kSingleFile, SafetensorsFile(folder / kSingleFile)).first->second);
    return;
  }
  require(fs::exists(folder / kIndexFile, error), "{}: no weights: neither {} nor {}", folder.string(), kSingleFile,
          kIndexFile);
  open_shards(folder / kIndexFile);
}

void TensorFolder::add_all(const SafetensorsFile& file) {
  for (const StoredTensor& tensor : file.tensors()) index_.emplace(tensor.name, Place{&file, &tensor});
}

void TensorFolder::open_shards(const fs::path& index_path) {
  const auto weight_map = read_weight_map(index_path);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  std::vector<std::string> missing;
  for (const std::string& shard : shards)
    if (std::error_code error; !fs::exists(path_ / shard, error)) missing.push_back(shard);
  require(missing.empty(), "{}: missing shard{}: {}", path_.string(), plural(missing.size()), join_names(missing));

  std::vector<std::string> unlisted;
  for (const std::string& shard : shards) {
    const auto& file = files_.emplace(shard, SafetensorsFile(path_ / shard)).first->second;
    for (const StoredTensor& tensor : file.tensors()) {
      const auto it = weight_map.find(tensor.name);
      if (it == weight_map.end() || it->second != shard)
        unlisted.push_back(fmt::format("{} in {}", tensor.name, shard));
    }
    add_all(file);
  }
  require(unlisted.empty(), "{}: the index does not list {}", index_path.string(), join_names(unlisted));
  std::vector<std::string> absent;
  for (const auto& [tensor, shard] : weight_map)
    if (files_.at(shard).find(tensor) == nullptr) absent.push_back(fmt::format("{} in {}", tensor, shard));
  std::ranges::sort(absent);
  require(absent.empty(), "{}: the shards lack what the index lists: {}", index_path.string(), join_names(absent));
}

std::vector<std::string> TensorFolder::names() const {
  std::vector<std::string> names;
  names.reserve(index_.size());
  for (const auto& [name, place] : index_) names.emplace_back(name);
  return names;
}

const StoredTensor* TensorFolder::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : it->second.tensor;
}

const TensorFolder::Place& TensorFolder::place(std::string_view name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) refuse("{}: tensor {} is missing", path_.string(), name);
  return it->second;
}

void TensorFolder::read_into(std::string_view name, const TensorView& out) const {
  const Place& at = place(name);
  at.file->read_into(*at.tensor, out);
}

void TensorFolder::require_exactly(std::span<const Expected> expected, std::span<const std::string> ignored) const {
  std::vector<std::string> missing;
  std::set<std::string_view> known(ignored.begin(), ignored.end());
  for (const Expected& tensor : expected) {
    known.insert(tensor.name);
    if (find(tensor.name) == nullptr) missing.push_back(tensor.name);
  }
  require(missing.empty(), "{}: {} tensor{} missing: {}", path_.string(), missing.size(),
          missing.size() == 1 ? " is" : "s are", join_names(missing));
  std::vector<std::string> unexpected;
  for (const auto& [name, at] : index_)
    if (!known.contains(name) && !name.ends_with("rotary_emb.inv_freq")) unexpected.emplace_back(name);
  require(unexpected.empty(), "{}: {} tensor{} not part of the model: {}", path_.string(), unexpected.size(),
          unexpected.size() == 1 ? " is" : "s are", join_names(unexpected));
  for (const Expected& tensor : expected) {
    const Place& at = place(tensor.name);
    at.file->require_readable(*at.tensor, DType::f32, tensor.shape);
  }
}

TensorFolderWriter::TensorFolderWriter(fs::path folder, std::vector<TensorSpec> tensors, std::size_t max_shard_bytes)
    : folder_(std::move(folder)), shards_(1) {
  std::size_t shard_bytes = 0;
  for (TensorSpec& tensor : tensors) {
    const std::size_t bytes = tensor.bytes();
    if (max_shard_bytes != 0 && bytes > 0 && !shards_.back().empty() &&
        checked_add(shard_bytes, bytes) > max_shard_bytes) {
      shards_.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes = checked_add(shard_bytes, bytes);
    shards_.back().push_back(std::move(tensor));
  }
  open_shard();
}

std::string TensorFolderWriter::shard_name(std::size_t shard) const {
  if (shards_.size() == 1) return kSingleFile;
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards_.size());
}

void TensorFolderWriter::open_shard() {
  written_ = 0;
  writer_.emplace(folder_ / shard_name(shard_), shards_[shard_]);
}

void TensorFolderWriter::write(const TensorView& tensor) {
  if (written_ == shards_[shard_].size() && shard_ + 1 < shards_.size()) {
    writer_->finish();
    ++shard_;
    open_shard();
  }
  writer_->write(tensor);
  ++written_;
}

void TensorFolderWriter::finish() {
  check(shard_ + 1 == shards_.size(), "{}: {} of {} shards were written", folder_.string(), shard_, shards_.size());
  writer_->finish();
  if (shards_.size() > 1) write_index();
}

void TensorFolderWriter::write_index() const {
  std::size_t parameters = 0;
  std::size_t bytes = 0;
  std::map<std::string, std::string> map;
  for (std::size_t shard = 0; shard < shards_.size(); ++shard)
    for (const TensorSpec& tensor : shards_[shard]) {
      parameters += tensor.elements();
      bytes += tensor.bytes();
      check(map.emplace(tensor.name, shard_name(shard)).second, "{}: two tensors are called {}", folder_.string(),
            tensor.name);
    }
  Json::Object weight_map;
  for (const auto& [name, file] : map) weight_map.push_back({name, file});
  Json metadata;
  metadata.set("total_parameters", narrow<std::int64_t>(parameters));
  metadata.set("total_size", narrow<std::int64_t>(bytes));
  Json index;
  index.set("metadata", std::move(metadata));
  index.set("weight_map", std::move(weight_map));
  write_file_durably(folder_ / kIndexFile, index.dump(2) + "\n");
}

}  // namespace lathe
