#include <omp.h>

#include <fstream>
#include <string>

#include "backends/register.h"
#include "core/error.h"
#include "lathe/commands.h"
#include "ops/cpu/gemm.h"

namespace lathe {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

int run_info() {
  fmt::print("lathe {}\n", LATHE_VERSION);
  fmt::print("build: {}, {}, CUDA architectures: {}\n", LATHE_BUILD_TYPE, LATHE_COMPILER, LATHE_CUDA_ARCHITECTURES);
  fmt::print("processor: {}, {} threads (OMP_NUM_THREADS)\n", processor_name(), omp_get_max_threads());
  const std::string no_cuda = device_unavailable(DeviceKind::cuda);
  fmt::print("device cpu: available\n");
  if (no_cuda.empty())
    fmt::print("device cuda: available, {}\n", make_device(DeviceKind::cuda)->describe());
  else
    fmt::print("device cuda: not available, {}\n", no_cuda);
  fmt::print("device auto: {}\n", no_cuda.empty() ? "cuda" : "cpu");
  fmt::print("matrix products on the CPU: {}\n", ops::cpu::gemm_name());
  for (const ops::MlaAttentionBackend& backend : attention_backends()) {
    const std::string missing = backend.unavailable();
    fmt::print("attention backend {}: {}, {}\n", backend.name, missing.empty() ? "available" : "not available",
               missing.empty() ? backend.computes : missing);
  }
  return 0;
}

}  // namespace lathe
