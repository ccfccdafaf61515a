// What the benchmarks share.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "device/device.h"

namespace lathe {

// Tensors of a benchmark, kept until its end.
class BenchMemory {
 public:
  BenchMemory(Device& device, Stream stream) : device_(device), stream_(stream) {}

  TensorView empty(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name);
  TensorView zeros(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name);
  // N(0, 1), in bf16 or f32. A GPU's clock depends on what it multiplies: zeros flatter it.
  TensorView normal(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name);

 private:
  Device& device_;
  Stream stream_;
  std::vector<Buffer> buffers_;
};

double median(std::vector<double> values);

}  // namespace lathe
