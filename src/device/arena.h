// Memory for activations and scratch: tensors are taken in order and given back together, down to a mark.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "device/device.h"

namespace lathe {

// Grows by blocks. The first tensor after all was given back finds them made into one, as large as the most that was
// taken at once: after the second use of a pattern nothing is allocated, and nothing is wasted. Memory taken is not
// cleared.
class Arena {
 public:
  // `name` says in messages what the memory is for, e.g. "activations".
  Arena(Device& device, std::string name);

  TensorView take(DType dtype, std::initializer_list<std::int64_t> shape);

  struct Mark {
    std::size_t block = 0;
    std::size_t used = 0;
    std::size_t taken = 0;
  };
  Mark mark() const { return {block_, used_, taken_}; }
  // Gives back everything taken since `mark`.
  void release(Mark mark);
  // Makes the blocks one; does nothing while something is taken.
  void compact();

  // The most that was taken at once.
  std::size_t high_water_bytes() const { return high_water_; }
  const std::string& name() const { return name_; }

 private:
  Device* device_;
  std::string name_;
  std::vector<Buffer> blocks_;
  std::size_t block_ = 0;  // the block in use
  std::size_t used_ = 0;   // bytes used in it
  std::size_t taken_ = 0;  // bytes of all tensors
  std::size_t high_water_ = 0;
};

// Gives back at the end of a scope what was taken in it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace lathe
