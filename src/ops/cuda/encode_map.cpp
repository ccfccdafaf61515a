#include "ops/cuda/encode_map.h"

#include <cuda_runtime.h>

#include <algorithm>

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

template <std::size_t kRank>
CUtensorMap encode_map(const TensorView& tensor, const MapShape<kRank>& shape, CUtensorMapL2promotion promotion) {
  static const Encode encode = encode_function();
  cuuint32_t steps[kRank];
  std::ranges::fill(steps, 1u);
  const CUtensorMapDataType type =
      tensor.dtype == DType::f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, kRank, tensor.data, shape.sizes, shape.strides, shape.box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw DeviceError(
        fmt::format("cuTensorMapEncodeTiled refused {} with CUresult {}", tensor.describe(), static_cast<int>(result)));
  return map;
}

template CUtensorMap encode_map<3>(const TensorView&, const MapShape<3>&, CUtensorMapL2promotion);
template CUtensorMap encode_map<5>(const TensorView&, const MapShape<5>&, CUtensorMapL2promotion);

}  // namespace lathe::ops::cuda
