#include "ops/cuda/mla_sm90/call_workspace.h"

#include "core/error.h"

namespace lathe::ops::cuda {

char* workspace_for(const Context& context, const Workspace& workspace, std::size_t bytes, std::string_view pass) {
  constexpr std::size_t kAlignment = 16;  // of the copy engine
  if (workspace.data != nullptr) {
    check(workspace.bytes >= bytes, "{}: needs {} bytes of workspace, {} were given", pass, bytes, workspace.bytes);
    check(reinterpret_cast<std::uintptr_t>(workspace.data) % kAlignment == 0,
          "{}: the workspace begins at {}, which is not a multiple of {} bytes", pass, workspace.data, kAlignment);
    return static_cast<char*>(workspace.data);
  }
  check(context.scratch != nullptr, "{}: needs {} bytes of workspace, none were given", pass, bytes);
  return static_cast<char*>(
      context.scratch->take(DType::i64, {static_cast<std::int64_t>(ceil_div(static_cast<std::int64_t>(bytes), 8))})
          .data);
}

}  // namespace lathe::ops::cuda
