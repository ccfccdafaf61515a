#include "ops/cuda/cublas_library.h"

#include <dlfcn.h>

#include <string>

#include "core/error.h"

namespace lathe::ops::cuda {
namespace {

constexpr const char* kName = "libcublasLt.so.13";
constexpr const char* kUsualPlace = "/usr/local/cuda/lib64/libcublasLt.so.13";  // where the loader may not look

void* open_library() {
  void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  const char* message = dlerror();
  const std::string reason = message != nullptr ? message : "no reason given";
  library = dlopen(kUsualPlace, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    fail("matrix products on the GPU need cuBLASLt of CUDA 13: {} cannot be loaded ({}), nor can {}", kName, reason,
         kUsualPlace);
  return library;
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) fail("{} has no function {}", kName, name);
}

CublasLibrary load_library() {
  void* file = open_library();
  CublasLibrary library;
  find(file, "cublasLtCreate", library.create);
  find(file, "cublasLtGetStatusName", library.status_name);
  find(file, "cublasLtGetStatusString", library.status_string);
  find(file, "cublasLtMatmul", library.matmul);
  find(file, "cublasLtMatmulAlgoGetHeuristic", library.heuristic);
  find(file, "cublasLtMatmulDescCreate", library.desc_create);
  find(file, "cublasLtMatmulDescSetAttribute", library.desc_set);
  find(file, "cublasLtMatrixLayoutCreate", library.layout_create);
  find(file, "cublasLtMatmulPreferenceCreate", library.preference_create);
  find(file, "cublasLtMatmulPreferenceDestroy", library.preference_destroy);
  find(file, "cublasLtMatmulPreferenceSetAttribute", library.preference_set);
  return library;
}

}  // namespace

const CublasLibrary& cublas_library() {
  static const CublasLibrary library = load_library();
  return library;
}

void check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  const CublasLibrary& library = cublas_library();
  throw DeviceError(fmt::format("{}: {} ({})", call, library.status_string(status), library.status_name(status)));
}

}  // namespace lathe::ops::cuda
