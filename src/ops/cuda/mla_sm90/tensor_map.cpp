#include "ops/cuda/mla_sm90/tensor_map.h"

#include <array>
#include <cstring>
#include <string_view>

#include "core/error.h"
#include "ops/cuda/encode_map.h"

namespace lathe::ops::cuda {
namespace {

constexpr int kPanelColumns = 64;  // 128 bytes, the widest swizzle

// All that a map depends on; without padding, so that it compares as bytes.
struct Key {
  const void* data;
  std::int64_t heads, tokens, panels, batches;
  std::int64_t head_stride, token_stride, batch_stride;  // in bytes
  std::int64_t box_tokens, box_panels;

  bool operator==(const Key& other) const { return std::memcmp(this, &other, sizeof(Key)) == 0; }
  std::uint64_t hash() const {
    std::uint64_t words[sizeof(Key) / 8];
    std::memcpy(words, this, sizeof(Key));
    std::uint64_t mixed = 0;
    for (const std::uint64_t word : words) mixed = (mixed ^ word) * 0x9e3779b97f4a7c15ull;
    return mixed ^ (mixed >> 29);
  }
};
static_assert(sizeof(Key) == 80);

Key key_of(const TensorView& tensor, BoxShape box) {
  const bool packed = tensor.rank == 3;
  const std::size_t token = packed ? 0 : 1;
  // A stride that is never used may be anything; the driver wants a multiple of 16 that is not 0.
  const auto bytes = [&](std::size_t dim) {
    return tensor.shape[dim] > 1 ? 2 * tensor.strides[dim] : std::int64_t{16};
  };
  Key key;
  key.data = tensor.data;
  key.heads = tensor.shape[token + 1];
  key.tokens = tensor.shape[token];
  key.panels = tensor.shape[token + 2] / kPanelColumns;
  key.batches = packed ? 1 : tensor.shape[0];
  key.head_stride = bytes(token + 1);
  key.token_stride = bytes(token);
  key.batch_stride = packed ? 16 : bytes(0);
  key.box_tokens = box.tokens;
  key.box_panels = box.panels;
  return key;
}

CUtensorMap encode(const Key& key, const TensorView& tensor) {
  const auto u64 = [](std::int64_t value) { return static_cast<cuuint64_t>(value); };
  const auto u32 = [](std::int64_t value) { return static_cast<cuuint32_t>(value); };
  const MapShape<5> shape{
      .sizes = {kPanelColumns, u64(key.heads), u64(key.tokens), u64(key.panels), u64(key.batches)},
      .strides = {u64(key.head_stride), u64(key.token_stride), 2 * kPanelColumns, u64(key.batch_stride)},
      .box = {kPanelColumns, 1, u32(key.box_tokens), u32(key.box_panels), 1}};
  return encode_map(tensor, shape,
                    key.panels > 1 ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

struct Entry {
  Key key{};
  CUtensorMap map{};
};

}  // namespace

CUtensorMap tensor_map(const TensorView& tensor, BoxShape box) {
  constexpr std::size_t kEntries = 512;  // a training step's attention tensors, several times
  thread_local std::array<Entry, kEntries> entries;
  const Key key = key_of(tensor, box);
  Entry& entry = entries[key.hash() % kEntries];
  if (!(entry.key == key)) {
    entry.map = encode(key, tensor);
    entry.key = key;
  }
  return entry.map;
}

void check_16_byte_access(std::string_view name, const TensorView& tensor) {
  constexpr std::int64_t kElements = 8;  // 16 bytes of bf16
  constexpr std::int64_t kLimit = std::int64_t{1} << 39;
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % 16 != 0)
    fail("{} begins at {}, which is not a multiple of 16 bytes", name, tensor.data);
  for (std::size_t dim = 0; dim + 1 < static_cast<std::size_t>(tensor.rank); ++dim) {
    if (tensor.shape[dim] <= 1) continue;
    const std::int64_t stride = tensor.strides[dim];
    if (stride < 0 || stride >= kLimit || stride % kElements != 0)  // the message is made only then: it takes long
      fail("{} is {}: stride {} of dimension {} must be a multiple of {} elements (16 bytes), from 0 to below 2^39",
           name, tensor.describe(), stride, dim, kElements);
  }
}

}  // namespace lathe::ops::cuda
