// The weights of a folder in Hugging Face's layout: `model.safetensors`, or shards with
// `model.safetensors.index.json`. Names, not meanings: what the tensors are is the model's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/safetensors.h"

namespace lathe {

// Whether one of the two stands in `folder`.
bool has_tensor_files(const std::filesystem::path& folder);

class TensorFolder {
 public:
  // Throws InputError naming the file or tensor: no weights, a shard that is missing, a shard and the index that
  // disagree on what the shard holds. With both layouts present the single file is taken, as transformers does.
  explicit TensorFolder(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  std::size_t size() const { return index_.size(); }
  // Sorted.
  std::vector<std::string> names() const;
  // Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const;

  // As SafetensorsFile::read_into; throws InputError if there is no tensor of that name.
  void read_into(std::string_view name, const TensorView& out) const;

  struct Expected {
    std::string name;
    std::vector<std::int64_t> shape;
  };
  // Throws InputError unless the folder holds `expected` and nothing else, with these shapes and a floating dtype.
  // `ignored` may be there too, and so may `*rotary_emb.inv_freq`, which older tools saved.
  void require_exactly(std::span<const Expected> expected, std::span<const std::string> ignored = {}) const;

 private:
  struct Place {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
  };
  void add_all(const SafetensorsFile& file);
  void open_shards(const std::filesystem::path& index_path);
  const Place& place(std::string_view name) const;

  std::filesystem::path path_;
  std::map<std::string, SafetensorsFile> files_;  // by name in the folder
  std::map<std::string_view, Place> index_;
};

// Writes weights as one file, or as shards with their index where they take more than `max_shard_bytes` (0: no limit;
// a tensor is never cut). The bytes are a function of the tensors and the limit alone.
class TensorFolderWriter {
 public:
  TensorFolderWriter(std::filesystem::path folder, std::vector<TensorSpec> tensors, std::size_t max_shard_bytes = 0);

  // The next tensor's elements, in the order announced.
  void write(const TensorView& tensor);
  // Throws Error if tensors are missing.
  void finish();

 private:
  void open_shard();
  void write_index() const;
  std::string shard_name(std::size_t shard) const;

  std::filesystem::path folder_;
  std::vector<std::vector<TensorSpec>> shards_;
  std::optional<SafetensorsWriter> writer_;
  std::size_t shard_ = 0;    // the one under way
  std::size_t written_ = 0;  // tensors of it
};

}  // namespace lathe
