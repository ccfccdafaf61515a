// The device memory of a call, forward or backward.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/checked.h"
#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

// Where each part of a workspace begins. The first piece holds the forward's counters, which are zero between calls;
// the backward leaves it alone, so that both may use one workspace.
class WorkspaceLayout {
 public:
  static constexpr std::size_t kPiece = 256;  // what each part is aligned to

  // Returns where `count` elements of `size` bytes begin.
  std::size_t take(std::size_t count, std::size_t size) {
    const std::size_t begin = bytes_;
    const std::size_t end = checked_add(begin, checked_mul(count, size));
    bytes_ = checked_add(end, kPiece - 1) / kPiece * kPiece;
    return begin;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = kPiece;
};

// The workspace of the call, or scratch memory. Throws Error if there is none or it is too small. `pass` is for the
// message.
char* workspace_for(const Context& context, const Workspace& workspace, std::size_t bytes, std::string_view pass);

}  // namespace lathe::ops::cuda
