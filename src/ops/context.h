// What every op is given: where to run and what memory it may use meanwhile.
#pragma once

#include "device/arena.h"
#include "device/device.h"

namespace lathe::ops {

struct Table;

struct Context {
  const Table* table = nullptr;  // the implementations of the device (backends/register.h)
  Device* device = nullptr;
  Stream stream;
  Arena* scratch = nullptr;  // what an op takes here it gives back before it returns
};

}  // namespace lathe::ops
