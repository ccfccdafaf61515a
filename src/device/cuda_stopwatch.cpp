#include "device/cuda_check.h"
#include "device/stopwatch.h"

namespace lathe {
namespace {

class CudaRecording final : public Stopwatch::Recording {
 public:
  explicit CudaRecording(cudaGraph_t graph) {
    check_cuda(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  }
  ~CudaRecording() override { static_cast<void>(cudaGraphExecDestroy(exec)); }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;

  cudaGraphExec_t exec = nullptr;
};

class Events {
 public:
  explicit Events(int count) {
    for (int i = 0; i < count; ++i) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreate(&event), "cudaEventCreate");
      events_.push_back(event);
    }
  }
  ~Events() {
    for (cudaEvent_t event : events_) static_cast<void>(cudaEventDestroy(event));
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  cudaEvent_t at(int index) const { return events_[static_cast<std::size_t>(index)]; }

 private:
  std::vector<cudaEvent_t> events_;
};

class CudaStopwatch final : public Stopwatch {
 public:
  CudaStopwatch() {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~CudaStopwatch() override { static_cast<void>(cudaStreamDestroy(stream_)); }
  CudaStopwatch(const CudaStopwatch&) = delete;
  CudaStopwatch& operator=(const CudaStopwatch&) = delete;

  Stream stream() const override { return {stream_}; }

  std::unique_ptr<Recording> record(std::function<void()> work) override {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream_, &graph));
      static_cast<void>(cudaGraphDestroy(graph));
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> owner(graph, cudaGraphDestroy);
    return std::make_unique<CudaRecording>(graph);
  }

  std::vector<double> replay(const Recording& recording, int count) override {
    const cudaGraphExec_t exec = static_cast<const CudaRecording&>(recording).exec;
    const Events events(count + 1);
    check_cuda(cudaEventRecord(events.at(0), stream_), "cudaEventRecord");
    for (int i = 0; i < count; ++i) {
      check_cuda(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
      check_cuda(cudaEventRecord(events.at(i + 1), stream_), "cudaEventRecord");
    }
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    std::vector<double> times;
    for (int i = 0; i < count; ++i) {
      float milliseconds = 0;
      check_cuda(cudaEventElapsedTime(&milliseconds, events.at(i), events.at(i + 1)), "cudaEventElapsedTime");
      times.push_back(1e3 * static_cast<double>(milliseconds));
    }
    return times;
  }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Stopwatch> make_cuda_stopwatch() { return std::make_unique<CudaStopwatch>(); }

}  // namespace lathe
