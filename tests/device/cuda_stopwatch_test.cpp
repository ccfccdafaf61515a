#include <gtest/gtest.h>

#include <array>
#include <stdexcept>

#include "device/cuda_device.h"
#include "device/stopwatch.h"

namespace lathe {
namespace {

class CudaStopwatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = cuda_device_unavailable();
    if (!reason.empty()) GTEST_SKIP() << reason;
    device_ = make_cuda_device(0);
    stopwatch_ = make_cuda_stopwatch();
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stopwatch> stopwatch_;
};

TEST_F(CudaStopwatchTest, ReplaysWhatTheWorkPutIntoTheStream) {
  constexpr std::int64_t kCount = 1 << 20;
  const Buffer buffer(*device_, kCount * sizeof(float), "buffer");
  const TensorView tensor = TensorView::contiguous(buffer.data(), DType::f32, {kCount}, DeviceKind::cuda);
  std::array<float, 1> host{1.f};
  const TensorView value = TensorView::contiguous(host.data(), DType::f32, {1});
  const TensorView first = tensor.slice(0, 0, 1);
  int runs = 0;
  const auto recording = stopwatch_->record([&] {
    ++runs;
    device_->fill_zero(tensor, stopwatch_->stream());
  });
  device_->copy(first, value, stopwatch_->stream());  // after the recording, which has done nothing yet
  const std::vector<double> times = stopwatch_->replay(*recording, 5);
  device_->copy(value, first, stopwatch_->stream());
  device_->synchronize(stopwatch_->stream());
  EXPECT_EQ(host[0], 0.f);
  EXPECT_EQ(runs, 1);
  ASSERT_EQ(times.size(), 5U);
  for (const double microseconds : times) EXPECT_GT(microseconds, 0);
}

TEST_F(CudaStopwatchTest, WorkThatFailsLeavesTheStreamUsable) {
  EXPECT_THROW(stopwatch_->record([] { throw std::runtime_error("no"); }), std::runtime_error);
  const auto recording = stopwatch_->record([] {});
  EXPECT_EQ(stopwatch_->replay(*recording, 2).size(), 2U);
}

}  // namespace
}  // namespace lathe
