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
  fmt::print("build: {}, {}\n", LATHE_BUILD_TYPE, LATHE_COMPILER);
  fmt::print("processor: {}, {} threads (OMP_NUM_THREADS)\n", processor_name(), omp_get_max_threads());
  fmt::print("devices: cpu\n");
  fmt::print("matrix products on the CPU: {}\n", ops::cpu::gemm_name());
  for (const BackendStatus& backend : attention_backends())
    fmt::print("attention backend {}: {}, {}\n", backend.name, backend.available ? "available" : "not available",
               backend.reason);
  return 0;
}

}  // namespace lathe
