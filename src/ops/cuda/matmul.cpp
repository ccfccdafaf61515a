#include "ops/cuda/matmul.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>

#include "ops/cuda/cublas_library.h"
#include "ops/cuda/views.h"

namespace lathe::ops::cuda {
namespace {

constexpr std::size_t kMaxWorkspace = std::size_t{32} << 20;  // what cuBLAS itself takes on Hopper
constexpr std::size_t kWorkspaceAlignment = 256;

std::int64_t alignment_of(const void* data) {
  // The arena's: what lies beyond it may differ between the first micro-batch of a process and the others, and with it
  // the algorithm.
  constexpr std::uintptr_t kMost = 64;
  return static_cast<std::int64_t>(std::uintptr_t{1}
                                   << std::countr_zero(reinterpret_cast<std::uintptr_t>(data) | kMost));
}

// All that the choice of an algorithm may depend on.
using Key = std::array<std::int64_t, 14>;

Key key_of(const Matmul& p, int device) {
  return {device,
          p.m,
          p.n,
          p.k,
          p.lda,
          p.ldb,
          p.ldc,
          p.transpose_a,
          p.transpose_b,
          static_cast<std::int64_t>(p.element) * 2 + static_cast<std::int64_t>(p.result),
          p.accumulate,
          alignment_of(p.a),
          alignment_of(p.b),
          alignment_of(p.c)};
}

cudaDataType_t type_of(Element element) { return element == Element::f32 ? CUDA_R_32F : CUDA_R_16BF; }

// Never destroyed: a plan lives as long as the thread's cache, and cuBLASLt may be gone when that ends.
struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algo{};
  std::size_t workspace = 0;
};

// cuBLASLt counts by columns: a row-major matrix is its transpose there, so b comes first and the result is c
// transposed.
Plan make_plan(cublasLtHandle_t handle, const Matmul& p) {
  const CublasLibrary& library = cublas_library();
  Plan plan;
  check_cublas(library.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const auto set_desc = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check_cublas(library.desc_set(plan.desc, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
  };
  const cublasOperation_t operation_a = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t operation_b = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  set_desc(CUBLASLT_MATMUL_DESC_TRANSA, operation_a);
  set_desc(CUBLASLT_MATMUL_DESC_TRANSB, operation_b);

  // Rows and columns as this file counts them; theirs the other way around.
  const auto make_layout = [&](Element element, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    cublasLtMatrixLayout_t layout = nullptr;
    check_cublas(library.layout_create(&layout, type_of(element), static_cast<std::uint64_t>(columns),
                                       static_cast<std::uint64_t>(rows), stride),
                 "cublasLtMatrixLayoutCreate");
    return layout;
  };
  plan.a = p.transpose_b ? make_layout(p.element, p.n, p.k, p.ldb) : make_layout(p.element, p.k, p.n, p.ldb);
  plan.b = p.transpose_a ? make_layout(p.element, p.k, p.m, p.lda) : make_layout(p.element, p.m, p.k, p.lda);
  plan.c = make_layout(p.result, p.m, p.n, p.ldc);

  cublasLtMatmulPreference_t preference = nullptr;
  check_cublas(library.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_cublas(library.preference_set(preference, attribute, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kMaxWorkspace));
  // Parts of a sum over k are added in fp32, never in the result's type.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(alignment_of(p.b)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(alignment_of(p.a)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(alignment_of(p.c)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(alignment_of(p.c)));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      library.heuristic(handle, plan.desc, plan.a, plan.b, plan.c, plan.c, preference, 1, &found, &count);
  check_cublas(library.preference_destroy(preference), "cublasLtMatmulPreferenceDestroy");
  check(status == CUBLAS_STATUS_SUCCESS && count == 1,
        "cuBLASLt has no algorithm for a product of m {}, n {}, k {}, row strides {}, {}, {}: {}", p.m, p.n, p.k, p.lda,
        p.ldb, p.ldc, library.status_name(status));
  plan.algo = found.algo;
  plan.workspace = found.workspaceSize;
  return plan;
}

// One handle a device and thread, with the plans made so far.
struct Cache {
  std::map<int, cublasLtHandle_t> handles;
  std::map<Key, Plan> plans;
};

cublasLtHandle_t handle_for(Cache& cache, int device) {
  cublasLtHandle_t& handle = cache.handles[device];
  if (handle == nullptr) check_cublas(cublas_library().create(&handle), "cublasLtCreate");
  return handle;
}

}  // namespace

std::int64_t leading_dimension(const TensorView& matrix) {
  const auto last = static_cast<std::size_t>(matrix.rank - 1);
  const std::int64_t width = std::max<std::int64_t>(matrix.shape[last], 1);
  return matrix.shape[last - 1] <= 1 ? width : matrix.strides[last - 1];
}

void matmul(const Context& context, const Matmul& product) {
  if (product.m == 0 || product.n == 0) return;
  const cudaStream_t stream = stream_of(context);
  if (product.k == 0) {
    const std::size_t size = product.result == Element::f32 ? 4 : 2;
    if (!product.accumulate)
      check_cuda(
          cudaMemset2DAsync(product.c, static_cast<std::size_t>(product.ldc) * size, 0,
                            static_cast<std::size_t>(product.n) * size, static_cast<std::size_t>(product.m), stream),
          "cudaMemset2DAsync");
    return;
  }
  thread_local Cache cache;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  cublasLtHandle_t handle = handle_for(cache, device);
  const Key key = key_of(product, device);
  auto plan = cache.plans.find(key);
  if (plan == cache.plans.end()) plan = cache.plans.emplace(key, make_plan(handle, product)).first;
  const Plan& p = plan->second;

  const ArenaScope scope(*context.scratch);
  void* workspace = nullptr;
  if (p.workspace > 0) {
    auto* memory =
        take_scratch<std::int64_t>(context, static_cast<std::int64_t>((p.workspace + kWorkspaceAlignment) / 8));
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    workspace =
        reinterpret_cast<void*>((address + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment);
  }
  const float alpha = 1;
  const float beta = product.accumulate ? 1.f : 0.f;
  check_cublas(cublas_library().matmul(handle, p.desc, &alpha, product.b, p.a, product.a, p.b, &beta, product.c, p.c,
                                       product.c, p.c, &p.algo, workspace, p.workspace, stream),
               "cublasLtMatmul");
}

}  // namespace lathe::ops::cuda
