#include "device/cuda_device.h"

#include <algorithm>
#include <string_view>

#include "core/log.h"
#include "device/cuda_check.h"
#include "device/cuda_round.h"

namespace lathe {
namespace {

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

static_assert(std::string_view(LATHE_CUDA_ARCHITECTURE).ends_with('a'), "find_wrong_architecture takes no other");

// 0 if there is no driver.
int driver_version() {
  int version = 0;
  check_cuda(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  return version;
}

// Kernels with an "a" in their architecture run on that compute capability only.
std::string find_wrong_architecture() {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  if (fmt::format("{}{}a", properties.major, properties.minor) == LATHE_CUDA_ARCHITECTURE) return {};
  return fmt::format("{} has compute capability {}.{}, this build has kernels for sm_{}", properties.name,
                     properties.major, properties.minor, LATHE_CUDA_ARCHITECTURE);
}

std::string find_no_driver() {
  const int driver = driver_version();
  if (driver == 0) return "no NVIDIA driver: libcuda.so.1 cannot be loaded";
  int devices = 0;
  const cudaError_t result = cudaGetDeviceCount(&devices);
  if (result == cudaSuccess && devices > 0) return {};
  cudaGetLastError();  // clears the runtime's record of it
  if (result == cudaErrorInsufficientDriver)
    return fmt::format("the NVIDIA driver is for CUDA {}, this build needs {} or newer", version_text(driver),
                       version_text(CUDART_VERSION));
  if (result == cudaSuccess || result == cudaErrorNoDevice) return "no GPU: the NVIDIA driver lists none";
  return fmt::format("cudaGetDeviceCount: {} ({})", cudaGetErrorString(result), cudaGetErrorName(result));
}

cudaStream_t handle_of(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

cudaMemcpyKind direction(const TensorView& to, const TensorView& from) {
  if (to.device == DeviceKind::cuda)
    return from.device == DeviceKind::cuda ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return from.device == DeviceKind::cuda ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
    check_cuda(cudaGetDeviceProperties(&properties_, index), "cudaGetDeviceProperties");
  }

  DeviceKind kind() const override { return DeviceKind::cuda; }

  std::string describe() const override {
    return fmt::format("{}, {} SMs, compute capability {}.{}, driver {}", properties_.name,
                       properties_.multiProcessorCount, properties_.major, properties_.minor,
                       version_text(driver_version()));
  }

  void* allocate(std::size_t bytes, const std::string& name) override {
    check_cuda(cudaSetDevice(index_), "cudaSetDevice");
    void* data = nullptr;
    const cudaError_t result = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
    if (result == cudaErrorMemoryAllocation) fail_out_of_memory(bytes, name);
    check_cuda(result, "cudaMalloc");
    allocated_ += bytes;
    peak_ = std::max(peak_, allocated_);
    return data;
  }

  // cudaFree waits for the device, so nothing still uses the memory. An error here was caused by earlier work and is
  // reported by the next call that checks.
  void release(void* data, std::size_t bytes) noexcept override {
    static_cast<void>(cudaFree(data));
    allocated_ -= bytes;
  }

  void synchronize(Stream stream) override {
    check_cuda(cudaStreamSynchronize(handle_of(stream)), "cudaStreamSynchronize");
  }

  std::size_t peak_memory_bytes() const override { return peak_; }

 private:
  void do_copy(const TensorView& to, const TensorView& from, Stream stream) override {
    if (rounding_copy(to, from))
      return check_cuda(round_to_bf16(to.data, from.as<float>(), to.numel(), handle_of(stream)), "round_to_bf16");
    check_cuda(cudaMemcpyAsync(to.data, from.data, to.bytes(), direction(to, from), handle_of(stream)),
               "cudaMemcpyAsync");
  }

  void do_fill_zero(const TensorView& tensor, Stream stream) override {
    check_cuda(cudaMemsetAsync(tensor.data, 0, tensor.bytes(), handle_of(stream)), "cudaMemsetAsync");
  }

  [[noreturn]] static void fail_out_of_memory(std::size_t bytes, const std::string& name) {
    cudaGetLastError();  // said by the exception; the next check is not to find it again
    std::size_t free = 0;
    std::size_t total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw OutOfMemoryError(fmt::format("out of memory on the GPU: {} wanted for {}, {} of {} are free",
                                       format_bytes(bytes), name, format_bytes(free), format_bytes(total)));
  }

  int index_;
  cudaDeviceProp properties_{};
  std::size_t allocated_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace

void throw_cuda_error(cudaError_t result, const char* call) {
  cudaGetLastError();
  throw DeviceError(fmt::format("{}: {} ({})", call, cudaGetErrorString(result), cudaGetErrorName(result)));
}

std::string cuda_driver_unavailable() {
  static const std::string obstacle = find_no_driver();
  return obstacle;
}

std::string cuda_device_unavailable() {
  static const std::string obstacle =
      cuda_driver_unavailable().empty() ? find_wrong_architecture() : cuda_driver_unavailable();
  return obstacle;
}

std::unique_ptr<Device> make_cuda_device(int index) { return std::make_unique<CudaDevice>(index); }

}  // namespace lathe
