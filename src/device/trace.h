// Spans of the host's time with names: a profiler shows them above the kernels that were launched in them (NVTX).
// Without a profiler they cost nanoseconds; in a build without CUDA nothing.
#pragma once

namespace lathe {

class TraceRange {
 public:
  explicit TraceRange(const char* name);
  ~TraceRange();
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace lathe
