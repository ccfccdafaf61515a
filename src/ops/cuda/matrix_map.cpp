#include "ops/cuda/matrix_map.h"

#include "ops/cuda/encode_map.h"

namespace lathe::ops::cuda {

CUtensorMap matrix_map(const TensorView& matrices, int box_rows) {
  const bool stack = matrices.rank == 3;
  const std::size_t row = stack ? 1 : 0;
  const auto size = [&](std::size_t dim) { return static_cast<cuuint64_t>(matrices.shape[dim]); };
  const auto element = static_cast<std::int64_t>(size_of(matrices.dtype));
  // A stride that is never used may be anything; the driver wants a multiple of 16 that is not 0.
  const auto bytes = [&](std::size_t dim) {
    return static_cast<cuuint64_t>(matrices.shape[dim] > 1 ? element * matrices.strides[dim] : std::int64_t{16});
  };
  const MapShape<3> shape{.sizes = {size(row + 1), size(row), stack ? size(0) : 1},
                          .strides = {bytes(row), stack ? bytes(0) : 16},
                          .box = {static_cast<cuuint32_t>(128 / element), static_cast<cuuint32_t>(box_rows), 1}};
  return encode_map(matrices, shape, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
}

}  // namespace lathe::ops::cuda
