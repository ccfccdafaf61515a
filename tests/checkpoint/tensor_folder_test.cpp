#include "checkpoint/tensor_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/json.h"
#include "core/test_support.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

// A file of f32 tensors [2], each filled with its number.
void write_tensors(const fs::path& path, const std::vector<std::string>& names) {
  std::vector<std::vector<float>> values;
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < names.size(); ++i) values.emplace_back(2, static_cast<float>(i));
  for (std::size_t i = 0; i < names.size(); ++i)
    tensors.push_back({names[i], TensorView::contiguous(values[i].data(), DType::f32, {2})});
  write_safetensors(path, tensors);
}

void write_index(const fs::path& folder, const std::string& weight_map) {
  write_bytes(folder / "model.safetensors.index.json",
              R"({"metadata":{"total_size":8},"weight_map":)" + weight_map + "}");
}

std::string opening(const fs::path& folder) {
  return message_of([&] { TensorFolder tensors(folder); });
}

TEST(TensorFolder, ReadsASingleFile) {
  const TemporaryFolder folder;
  EXPECT_FALSE(has_tensor_files(folder.path()));
  EXPECT_EQ(opening(folder.path()),
            folder.path().string() + ": no weights: neither model.safetensors nor model.safetensors.index.json");
  write_tensors(folder / "model.safetensors", {"b", "a"});
  EXPECT_TRUE(has_tensor_files(folder.path()));
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(tensors.names(), (std::vector<std::string>{"a", "b"}));
  std::vector<float> out(2, -1.0F);
  tensors.read_into("a", TensorView::contiguous(out.data(), DType::f32, {2}));
  EXPECT_EQ(out, (std::vector<float>{1, 1}));
  EXPECT_EQ(message_of([&] { tensors.read_into("c", TensorView::contiguous(out.data(), DType::f32, {2})); }),
            folder.path().string() + ": tensor c is missing");
}

TEST(TensorFolder, ReadsShards) {
  const TemporaryFolder folder;
  write_tensors(folder / "x.safetensors", {"a", "b"});
  write_tensors(folder / "y.safetensors", {"c", "d"});
  write_index(folder.path(), R"({"a":"x.safetensors","d":"y.safetensors","b":"x.safetensors","c":"y.safetensors"})");
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(tensors.names(), (std::vector<std::string>{"a", "b", "c", "d"}));
  std::vector<float> out(2, -1.0F);
  tensors.read_into("d", TensorView::contiguous(out.data(), DType::f32, {2}));
  EXPECT_EQ(out, (std::vector<float>{1, 1}));
  EXPECT_EQ(tensors.find("e"), nullptr);
}

TEST(TensorFolder, RefusesShardsThatDoNotMatchTheIndex) {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  const std::string index = path + "/model.safetensors.index.json";
  write_tensors(folder / "x.safetensors", {"a", "b"});
  write_index(folder.path(), R"({"a":"x.safetensors","b":"y.safetensors","c":"z.safetensors"})");
  EXPECT_EQ(opening(folder.path()), path + ": missing shards: y.safetensors, z.safetensors");
  write_index(folder.path(), R"({"a":"x.safetensors"})");
  EXPECT_EQ(opening(folder.path()), index + ": the index does not list b in x.safetensors");
  write_index(folder.path(), R"({"a":"x.safetensors","b":"x.safetensors","c":"x.safetensors"})");
  EXPECT_EQ(opening(folder.path()), index + ": the shards lack what the index lists: c in x.safetensors");
  write_tensors(folder / "y.safetensors", {"b"});
  write_index(folder.path(), R"({"a":"x.safetensors","b":"y.safetensors"})");
  EXPECT_EQ(opening(folder.path()), index + ": the index does not list b in x.safetensors");
}

TEST(TensorFolder, RefusesMalformedIndexes) {
  const TemporaryFolder folder;
  write_tensors(folder / "x.safetensors", {"a"});
  const std::string index = (folder / "model.safetensors.index.json").string();
  const auto refusal = [&](const std::string& text) {
    write_bytes(index, text);
    return opening(folder.path()).substr(index.size());
  };
  EXPECT_EQ(refusal(""), ": not a JSON object: no '{' at byte 0");
  EXPECT_EQ(refusal("{}"), ": weight_map is missing");
  EXPECT_EQ(refusal(R"({"weight_map":[]})"), ": weight_map: not a JSON object: no '{' at byte 0");
  EXPECT_EQ(refusal(R"({"weight_map":{"a":3}})"), ": weight_map must give a file name for a, found a whole number");
  EXPECT_EQ(refusal(R"({"weight_map":{"a":"x.safetensors","a":"x.safetensors"}})"),
            ": tensor a stands twice in weight_map");
  EXPECT_EQ(refusal(R"({"weight_map":{},"weight_map":{}})"), ": weight_map stands twice");
  for (const char* name : {"../x.safetensors", "/x.safetensors", "x.bin", ""})
    EXPECT_EQ(refusal(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name)),
              fmt::format(": weight_map names \"{}\", allowed is a .safetensors file in the same folder", name));
  write_index(folder.path(), R"({"a":"x.safetensors"})");
  EXPECT_EQ(opening(folder.path()), "nothing was thrown");
}

TEST(TensorFolder, RequiresExactlyTheModelsTensors) {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  write_tensors(folder / "model.safetensors", {"a", "b", "layers.0.rotary_emb.inv_freq"});
  const TensorFolder tensors(folder.path());
  tensors.require_exactly(std::vector<TensorFolder::Expected>{{"a", {2}}, {"b", {2}}});
  const std::vector<TensorFolder::Expected> only_a{{"a", {2}}};
  tensors.require_exactly(only_a, std::vector<std::string>{"b"});
  EXPECT_EQ(message_of([&] { tensors.require_exactly(only_a); }), path + ": 1 tensor is not part of the model: b");
  EXPECT_EQ(message_of([&] {
              tensors.require_exactly(std::vector<TensorFolder::Expected>{{"a", {2}}, {"b", {2, 1}}});
            }),
            path + "/model.safetensors: tensor b has shape [2], expected [2, 1]");
  std::vector<TensorFolder::Expected> many{{"a", {2}}};
  std::string first;
  for (int i = 0; i < 25; ++i) {
    many.push_back({fmt::format("m{}", i), {1}});
    if (i < 20) first += fmt::format("m{}, ", i);
  }
  EXPECT_EQ(message_of([&] { tensors.require_exactly(many); }),
            path + ": 25 tensors are missing: " + first + "... (25 in all)");
}

TEST(TensorFolder, RefusesIntegersAsParameters) {
  const TemporaryFolder folder;
  std::int32_t value = 3;
  const std::vector<NamedTensor> stored{{"a", TensorView::contiguous(&value, DType::i32, {1})}};
  write_safetensors(folder / "model.safetensors", stored);
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(message_of([&] {
              tensors.require_exactly(std::vector<TensorFolder::Expected>{{"a", {1}}});
            }),
            folder.path().string() + "/model.safetensors: tensor a is I32, which cannot be read as f32");
}

// Writes tensors of 40, 8 and 100 bytes and one without elements.
void write_folder(const fs::path& folder, std::size_t max_shard_bytes) {
  TensorFolderWriter writer(
      folder, {{"b", DType::f32, {10}}, {"a", DType::f32, {2}}, {"z", DType::bf16, {5, 10}}, {"e", DType::f32, {0}}},
      max_shard_bytes);
  std::vector<float> values(50, 1.5F);
  writer.write(TensorView::contiguous(values.data(), DType::f32, {10}));
  writer.write(TensorView::contiguous(values.data(), DType::f32, {2}));
  writer.write(TensorView::contiguous(values.data(), DType::f32, {5, 10}));
  writer.write(TensorView::contiguous(values.data(), DType::f32, {0}));
  writer.finish();
}

TEST(TensorFolderWriter, WritesOneFileOrShards) {
  const TemporaryFolder folder;
  for (const std::size_t limit : {0U, 1U, 47U, 48U, 147U, 148U}) {
    const fs::path path = folder / fmt::format("limit-{}", limit);
    fs::create_directory(path);
    write_folder(path, limit);
    const auto shards = limit == 1U ? 3U : limit == 47U ? 3U : limit == 48U || limit == 147U ? 2U : 1U;
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(path))
      files += entry.path().extension() == ".safetensors" ? 1U : 0U;
    EXPECT_EQ(files, shards) << limit;
    EXPECT_EQ(fs::exists(path / "model.safetensors"), shards == 1);
    EXPECT_EQ(fs::exists(path / "model.safetensors.index.json"), shards > 1);
    const TensorFolder tensors(path);
    EXPECT_EQ(tensors.names(), (std::vector<std::string>{"a", "b", "e", "z"}));
    std::vector<float> out(50, std::numeric_limits<float>::quiet_NaN());
    tensors.read_into("z", TensorView::contiguous(out.data(), DType::f32, {5, 10}));
    EXPECT_EQ(out, std::vector<float>(50, 1.5F));
  }
}

TEST(TensorFolderWriter, WritesTheIndexOfTransformers) {
  const TemporaryFolder folder;
  write_folder(folder.path(), 48);
  EXPECT_EQ(read_bytes(folder / "model.safetensors.index.json"), R"({
  "metadata": {
    "total_parameters": 62,
    "total_size": 148
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors",
    "e": "model-00002-of-00002.safetensors",
    "z": "model-00002-of-00002.safetensors"
  }
}
)");
}

TEST(TensorFolderWriter, MissesNoTensor) {
  const TemporaryFolder folder;
  TensorFolderWriter writer(folder.path(), {{"a", DType::f32, {1}}, {"b", DType::f32, {1}}}, 4);
  float value = 1;
  writer.write(TensorView::contiguous(&value, DType::f32, {1}));
  EXPECT_EQ(message_of<Error>([&] { writer.finish(); }), folder.path().string() + ": 0 of 2 shards were written");
  writer.write(TensorView::contiguous(&value, DType::f32, {1}));
  EXPECT_NE(message_of<Error>([&] { writer.write(TensorView::contiguous(&value, DType::f32, {1})); }),
            "nothing was thrown");
}

}  // namespace
}  // namespace lathe
