#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "ops/cuda/element.h"

namespace lathe::ops::cuda {

// Rows [begin, end) of one group, at most a tile's height of them; group -1: nothing.
struct RowTile {
  std::int32_t group, begin, end;
};

struct GroupedParams {
  const std::int32_t* offsets = nullptr;  // [groups + 1]
  int groups = 0;
  int in = 0, out = 0;
  Matrix x;                // [rows, in]: x of forward and weight gradient, dx written by the input gradient
  Matrix y;                // [rows, out]: out, or dout
  void* weight = nullptr;  // [groups, out, in]: the weight, or the gradient that is added to
  std::int64_t weight_group = 0, weight_row = 0;  // strides
  const RowTile* tiles = nullptr;                 // forward and input gradient: [most_tiles]
  int most_tiles = 0;
  Element element = Element::f32;         // of x, y and weight
  Element weight_element = Element::f32;  // of the weight's gradient
};

enum class GroupedProduct { forward, input_gradient, weight_gradient };

// The tiles of `rows` rows each that groups are cut into, in order; the rest of `most_tiles` have group -1.
cudaError_t launch_list_row_tiles(const GroupedParams& params, int rows, RowTile* tiles, cudaStream_t stream);

// For elements of both types and any sizes, strides and alignment; tiles of kPlainRows rows.
inline constexpr int kPlainRows = 64;
cudaError_t launch_grouped_plain(GroupedProduct product, const GroupedParams& params, cudaStream_t stream);

// For bf16 in rows of whole 16 bytes, on Hopper's tensor cores; tiles of kTensorRows rows of the result and
// kTensorColumns columns.
inline constexpr int kTensorRows = 128;
inline constexpr int kTensorColumns = 256;

// How the factors are read: maps of 64 columns and so many rows (matrix_map.h). The weight's gradient is the product
// of y's columns and x's, k running along the rows of both.
struct GroupedMaps {
  CUtensorMap a;         // the result's rows: of x in the forward, else of y
  CUtensorMap b;         // the result's columns: of the weight, or of x
  CUtensorMap gradient;  // an fp32 gradient of the weight: boxes of kTensorGroupRows rows; else not used
};
inline constexpr int kTensorGroupRows = 64;
// The steps of k: rows of a box where k runs along the rows.
constexpr int tensor_depth(GroupedProduct product) { return product == GroupedProduct::weight_gradient ? 32 : 64; }
cudaError_t launch_grouped_tensor(GroupedProduct product, const GroupedMaps& maps, const GroupedParams& params,
                                  int multiprocessors, cudaStream_t stream);

}  // namespace lathe::ops::cuda
