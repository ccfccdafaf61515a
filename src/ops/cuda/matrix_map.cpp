#include "ops/cuda/matrix_map.h"

#include <cuda_runtime.h>

#include "core/error.h"
#include "device/cuda_check.h"

namespace lathe::ops::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// From the driver, so that nothing links against it: Lathe starts on machines without one.
Encode encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
             "cudaGetDriverEntryPointByVersion(cuTensorMapEncodeTiled)");
  if (result != cudaDriverEntryPointSuccess) throw DeviceError("the CUDA driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<Encode>(function);
}

}  // namespace

CUtensorMap matrix_map(const TensorView& matrices, int box_rows) {
  static const Encode encode = encode_function();
  const bool stack = matrices.rank == 3;
  const std::size_t row = stack ? 1 : 0;
  // A stride that is never used may be anything; the driver wants a multiple of 16 that is not 0.
  const auto bytes = [&](std::size_t dim) {
    return static_cast<cuuint64_t>(matrices.shape[dim] > 1 ? 2 * matrices.strides[dim] : std::int64_t{16});
  };
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(matrices.shape[row + 1]),
                               static_cast<cuuint64_t>(matrices.shape[row]),
                               stack ? static_cast<cuuint64_t>(matrices.shape[0]) : 1};
  const cuuint64_t strides[2] = {bytes(row), stack ? bytes(0) : 16};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, matrices.data, sizes, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw DeviceError(fmt::format("cuTensorMapEncodeTiled refused {} with CUresult {}", matrices.describe(),
                                  static_cast<int>(result)));
  return map;
}

}  // namespace lathe::ops::cuda
