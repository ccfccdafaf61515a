#include <gtest/gtest.h>

#include "device/cuda_device.h"
#include "device/timeline.h"

namespace lathe {
namespace {

TEST(CudaTimeline, TimesWhatTheStreamDoesInEachSpan) {
  const std::string reason = cuda_device_unavailable();
  if (!reason.empty()) GTEST_SKIP() << reason;
  const auto device = make_cuda_device(0);
  const auto timeline = make_cuda_timeline({});
  constexpr std::int64_t kCount = 1 << 24;
  const Buffer buffer(*device, kCount * sizeof(float), "buffer");
  const TensorView all = TensorView::contiguous(buffer.data(), DType::f32, {kCount}, DeviceKind::cuda);
  EXPECT_TRUE(timeline->take().empty());
  for (int round = 0; round < 2; ++round) {  // the second uses the first one's events
    for (int i = 0; i < 3; ++i) {
      timeline->begin();
      device->fill_zero(all, {});
      timeline->end();
    }
    const std::vector<double> spans = timeline->take();
    ASSERT_EQ(spans.size(), 3U);
    for (const double microseconds : spans) EXPECT_GT(microseconds, 0);
  }
}

}  // namespace
}  // namespace lathe
