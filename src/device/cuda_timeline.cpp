#include "device/cuda_events.h"
#include "device/timeline.h"

namespace lathe {
namespace {

class CudaTimeline final : public Timeline {
 public:
  explicit CudaTimeline(Stream stream) : stream_(static_cast<cudaStream_t>(stream.handle)) {}

  void begin() override { record(); }
  void end() override { record(); }

  std::vector<double> take() override {
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    std::vector<double> spans;
    for (std::size_t i = 0; i + 1 < recorded_; i += 2) spans.push_back(events_.microseconds(i, i + 1));
    recorded_ = 0;
    return spans;
  }

 private:
  void record() {
    check_cuda(cudaEventRecord(events_.at(recorded_), stream_), "cudaEventRecord");
    ++recorded_;
  }

  cudaStream_t stream_;
  CudaEvents events_;
  std::size_t recorded_ = 0;
};

}  // namespace

std::unique_ptr<Timeline> make_cuda_timeline(Stream stream) { return std::make_unique<CudaTimeline>(stream); }

}  // namespace lathe
