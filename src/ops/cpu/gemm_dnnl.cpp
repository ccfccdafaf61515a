// fp32 matrix products by oneDNN, which has none for fp64.
#include <dnnl.h>
#include <omp.h>

#include <string>

#include "core/error.h"
#include "ops/cpu/gemm_loop.h"

namespace lathe::ops::cpu {
namespace {

// While it lives, oneDNN uses the calling thread only. Inside a parallel region it does so by itself.
class OneThread {
 public:
  OneThread() : saved_(omp_in_parallel() != 0 ? 1 : omp_get_max_threads()) {
    if (saved_ > 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (saved_ > 1) omp_set_num_threads(saved_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int saved_;
};

}  // namespace

void gemm_on_one_thread(const Gemm<float>& g) {
  // dnnl_sgemm leaves c as it is when k is 0, even if beta is 0; and it takes no leading dimension of 0.
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {
    GemmLoop<float>::run(g);
    return;
  }
  const OneThread one_thread;
  const dnnl_status_t status = dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k, g.alpha,
                                          g.a, g.lda, g.b, g.ldb, g.beta, g.c, g.ldc);
  if (status != dnnl_success)
    fail("dnnl_sgemm: status {} for m {}, n {}, k {}, leading dimensions {}, {}, {}", static_cast<int>(status), g.m,
         g.n, g.k, g.lda, g.ldb, g.ldc);
}

void gemm_on_one_thread(const Gemm<double>& product) { GemmLoop<double>::run(product); }

std::string_view gemm_name() {
  static const std::string name = [] {
    const dnnl_version_t* version = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  }();
  return name;
}

}  // namespace lathe::ops::cpu
