#pragma once

#include <memory>

#include "device/device.h"

namespace lathe {

std::unique_ptr<Device> make_cpu_device();

}  // namespace lathe
