#include "device/cpu_device.h"

#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/log.h"

namespace lathe {
namespace {

constexpr std::size_t kAlignment = 64;  // one cache line, one AVX-512 register

void round(bf16* to, const float* from, std::int64_t count) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < count; ++i) to[i] = bf16(from[i]);
}

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }

  std::string describe() const override {
    const int threads = omp_get_max_threads();
    return fmt::format("CPU, {} thread{}", threads, threads == 1 ? "" : "s");
  }

  void* allocate(std::size_t bytes, const std::string& name) override {
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* data = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, std::max(rounded, kAlignment));
    if (data == nullptr)
      throw OutOfMemoryError(fmt::format("out of memory on the CPU: {} wanted for {}", format_bytes(bytes), name));
    return data;
  }

  void release(void* data, std::size_t) noexcept override { std::free(data); }

  void synchronize(Stream) override {}

  std::size_t peak_memory_bytes() const override {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
  }

 private:
  void do_copy(const TensorView& to, const TensorView& from, Stream) override {
    if (rounding_copy(to, from))
      round(to.as<bf16>(), from.as<float>(), to.numel());
    else
      std::memcpy(to.data, from.data, to.bytes());
  }

  void do_fill_zero(const TensorView& tensor, Stream) override { std::memset(tensor.data, 0, tensor.bytes()); }
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace lathe
