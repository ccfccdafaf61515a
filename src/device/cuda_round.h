#pragma once

#include <cuda_runtime_api.h>

#include "core/tensor_view.h"

namespace lathe {

// to = from, f32 to bf16, rounded to nearest even; both contiguous, of one element count, on the current device.
void round_on_cuda(const TensorView& to, const TensorView& from, cudaStream_t stream);

}  // namespace lathe
