// How long work on a device takes, by its own clock; for benchmarks.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "device/device.h"

namespace lathe {

class Stopwatch {
 public:
  // Work that can be replayed.
  class Recording {
   public:
    virtual ~Recording() = default;
  };

  virtual ~Stopwatch() = default;

  // Where `work` puts what it does.
  virtual Stream stream() const = 0;
  // On a GPU `work` runs once and becomes a CUDA graph: it may neither wait nor allocate, and what it was given must
  // outlive the recording. On the CPU it runs at each replay.
  virtual std::unique_ptr<Recording> record(std::function<void()> work) = 0;
  // The microseconds of each of `count` replays, back to back; of a recording of this stopwatch.
  virtual std::vector<double> replay(const Recording& recording, int count) = 0;
};

std::unique_ptr<Stopwatch> make_cpu_stopwatch();

// On the current CUDA device and a stream of its own. Only in a build with CUDA.
std::unique_ptr<Stopwatch> make_cuda_stopwatch();

}  // namespace lathe
