// When work on a device began and ended, by the device's own clock; for benchmarks.
#pragma once

#include <memory>
#include <vector>

#include "device/device.h"

namespace lathe {

// Spans of one stream's work, one after the other.
class Timeline {
 public:
  virtual ~Timeline() = default;

  // Around the calls that give the stream its work. On a GPU a span begins once all earlier work is done, so it also
  // holds the time in which the device waits for the host to launch.
  virtual void begin() = 0;
  virtual void end() = 0;
  // The microseconds of each span since the last call; waits for the stream.
  virtual std::vector<double> take() = 0;
};

std::unique_ptr<Timeline> make_cpu_timeline();

// On a stream of the current CUDA device. Its events are made when first needed and used again after `take`: a second
// recording of equal work makes none. Only in a build with CUDA.
std::unique_ptr<Timeline> make_cuda_timeline(Stream stream);

}  // namespace lathe
