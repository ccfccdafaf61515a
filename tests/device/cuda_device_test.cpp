#include "device/cuda_device.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/test_support.h"
#include "device/cuda_check.h"

namespace lathe {
namespace {

using test::message_of;

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = cuda_device_unavailable();
    if (!reason.empty()) GTEST_SKIP() << reason;
    device_ = make_cuda_device(0);
  }

  std::unique_ptr<Device> device_;
  Stream stream_;
};

TEST_F(CudaDeviceTest, DescribesTheGpu) {
  EXPECT_EQ(device_->kind(), DeviceKind::cuda);
  EXPECT_NE(device_->describe().find(" SMs, compute capability "), std::string::npos) << device_->describe();
  EXPECT_NE(device_->describe().find(", driver "), std::string::npos) << device_->describe();
}

TEST_F(CudaDeviceTest, CopiesThereWithinAndBack) {
  std::vector<float> sent(1000);
  std::iota(sent.begin(), sent.end(), 1.f);
  std::vector<float> received(sent.size());
  const auto count = static_cast<std::int64_t>(sent.size());
  const Buffer first(*device_, sent.size() * sizeof(float), "first");
  const Buffer second(*device_, sent.size() * sizeof(float), "second");
  const TensorView a = TensorView::contiguous(first.data(), DType::f32, {count}, DeviceKind::cuda);
  const TensorView b = TensorView::contiguous(second.data(), DType::f32, {count}, DeviceKind::cuda);
  const TensorView to = TensorView::contiguous(received.data(), DType::f32, {count});
  device_->copy(a, TensorView::contiguous(sent.data(), DType::f32, {count}), stream_);
  device_->copy(b, a, stream_);
  device_->fill_zero(b.slice(0, 500, 500), stream_);
  device_->copy(to, b, stream_);
  device_->synchronize(stream_);
  for (std::size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(received[i], i < 500 ? sent[i] : 0.f) << i;
}

TEST_F(CudaDeviceTest, RoundsToNearestEvenWithinTheDevice) {
  std::vector<float> sent{1.f, 1.00390625f, 1.01171875f, -3.14159f, 0.f};  // the second and third lie half way
  std::vector<bf16> received(sent.size());
  const auto count = static_cast<std::int64_t>(sent.size());
  const Buffer from(*device_, sent.size() * sizeof(float), "from");
  const Buffer to(*device_, sent.size() * sizeof(bf16), "to");
  const TensorView a = TensorView::contiguous(from.data(), DType::f32, {count}, DeviceKind::cuda);
  const TensorView b = TensorView::contiguous(to.data(), DType::bf16, {count}, DeviceKind::cuda);
  device_->copy(a, TensorView::contiguous(sent.data(), DType::f32, {count}), stream_);
  device_->copy(b, a, stream_);
  device_->copy(TensorView::contiguous(received.data(), DType::bf16, {count}), b, stream_);
  device_->synchronize(stream_);
  for (std::size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(received[i].bits, bf16(sent[i]).bits) << i;
}

TEST_F(CudaDeviceTest, PeakMemoryIsTheMostAtOnce) {
  {
    const Buffer one(*device_, 1000, "one");
    const Buffer two(*device_, 3000, "two");
  }
  const Buffer three(*device_, 2000, "three");
  const Buffer empty(*device_, 0, "empty");
  EXPECT_EQ(device_->peak_memory_bytes(), 4000);
}

TEST_F(CudaDeviceTest, TooMuchMemoryIsRefusedByNameAndForgotten) {
  const std::string message = message_of<OutOfMemoryError>([&] { device_->allocate(std::size_t{1} << 46, "a whale"); });
  EXPECT_NE(message.find("out of memory on the GPU: 70368.74 GB wanted for a whale"), std::string::npos) << message;
  EXPECT_NO_THROW(check_cuda(cudaGetLastError(), "cudaGetLastError"));
}

TEST_F(CudaDeviceTest, ErrorsNameTheCallAndAreForgotten) {
  EXPECT_THROW(check_cuda(cudaSetDevice(-3), "cudaSetDevice"), DeviceError);
  EXPECT_NO_THROW(check_cuda(cudaGetLastError(), "cudaGetLastError"));
  const std::string message = message_of<DeviceError>([] { check_cuda(cudaSetDevice(-3), "cudaSetDevice"); });
  EXPECT_EQ(message, "cudaSetDevice: invalid device ordinal (cudaErrorInvalidDevice)");
}

// Without a GPU the reason is one of three, and a device is refused.
TEST(CudaDevice, AbsenceHasAReason) {
  const std::string reason = cuda_device_unavailable();
  EXPECT_EQ(reason, cuda_device_unavailable());
  if (reason.empty()) return;
  EXPECT_TRUE(reason.starts_with("no NVIDIA driver") || reason.starts_with("the NVIDIA driver is for CUDA") ||
              reason.starts_with("no GPU") || reason.find("this build has kernels for") != std::string::npos ||
              reason.starts_with("cudaGetDeviceCount: "))
      << reason;
  EXPECT_THROW(make_cuda_device(0), DeviceError);
}

}  // namespace
}  // namespace lathe
