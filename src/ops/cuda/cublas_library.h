// cuBLASLt, loaded when the first product asks for it: Lathe starts on machines that lack it, and no program links it.
#pragma once

#include <cublasLt.h>

namespace lathe::ops::cuda {

struct CublasLibrary {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetStatusName) status_name = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
};

// Throws Error naming the library where it cannot be loaded.
const CublasLibrary& cublas_library();

// Throws DeviceError naming the call: "cublasLtMatmul: the requested functionality is not supported
// (CUBLAS_STATUS_NOT_SUPPORTED)".
void check_cublas(cublasStatus_t status, const char* call);

}  // namespace lathe::ops::cuda
