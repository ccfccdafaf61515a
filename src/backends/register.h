// Which implementations this build holds: the one place that joins ops and their implementations.
#pragma once

#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/table.h"

namespace lathe {

// The op table of a device; lives as long as the program.
const ops::Table& op_table(DeviceKind kind);

struct BackendStatus {
  std::string_view name;
  bool available = false;
  std::string_view reason;  // what it computes in, or what is missing
};

// Every attention backend that Lathe knows of.
std::vector<BackendStatus> attention_backends();

}  // namespace lathe
