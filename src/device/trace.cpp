#include "device/trace.h"

#if __has_include(<nvtx3/nvToolsExt.h>)

#include <nvtx3/nvToolsExt.h>

namespace lathe {

TraceRange::TraceRange(const char* name) { nvtxRangePushA(name); }
TraceRange::~TraceRange() { nvtxRangePop(); }

}  // namespace lathe

#else

namespace lathe {

TraceRange::TraceRange(const char*) {}
TraceRange::~TraceRange() = default;

}  // namespace lathe

#endif
