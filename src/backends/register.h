// Which implementations this build holds: the one place that joins ops and their implementations.
#pragma once

#include "device/device.h"
#include "ops/table.h"

namespace lathe {

// The op table of a device; lives as long as the program.
const ops::Table& op_table(DeviceKind kind);

}  // namespace lathe
