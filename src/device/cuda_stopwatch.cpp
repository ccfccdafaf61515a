#include "device/cuda_events.h"
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
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      cudaGetLastError();  // what the work's failure left there
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> owner(graph, cudaGraphDestroy);
    return std::make_unique<CudaRecording>(graph);
  }

  std::vector<double> replay(const Recording& recording, int count) override {
    const cudaGraphExec_t exec = static_cast<const CudaRecording&>(recording).exec;
    const auto replays = static_cast<std::size_t>(count);
    CudaEvents events;
    static_cast<void>(events.at(replays));  // all of them are made before the first is used
    check_cuda(cudaEventRecord(events.at(0), stream_), "cudaEventRecord");
    for (std::size_t i = 0; i < replays; ++i) {
      check_cuda(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
      check_cuda(cudaEventRecord(events.at(i + 1), stream_), "cudaEventRecord");
    }
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    std::vector<double> times;
    for (std::size_t i = 0; i < replays; ++i) times.push_back(events.microseconds(i, i + 1));
    return times;
  }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Stopwatch> make_cuda_stopwatch() { return std::make_unique<CudaStopwatch>(); }

}  // namespace lathe
