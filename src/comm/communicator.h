// Ranks that act together. Every collective is a sum (docs/numerics.md says why never a mean).
#pragma once

#include <memory>

#include "device/device.h"

namespace lathe {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The sum over all ranks, in place, in a fixed order; contiguous.
  virtual void all_reduce_sum(const TensorView& tensor, Stream stream) = 0;
};

// One rank: its own sum.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace lathe
