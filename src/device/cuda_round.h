// Plain types only: nvcc does not take fmt's headers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lathe {

// to = from, rounded to nearest even; contiguous bf16 and f32 of `count` > 0 elements on the current device.
cudaError_t round_to_bf16(void* to, const float* from, std::int64_t count, cudaStream_t stream);

}  // namespace lathe
