// Matrix products where oneDNN is missing.
#include "ops/cpu/gemm_loop.h"

namespace lathe::ops::cpu {

void gemm_on_one_thread(const Gemm<float>& product) { GemmLoop<float>::run(product); }
void gemm_on_one_thread(const Gemm<double>& product) { GemmLoop<double>::run(product); }

std::string_view gemm_name() { return "plain loop"; }

}  // namespace lathe::ops::cpu
