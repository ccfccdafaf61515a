// The functions of include/lathe/lathe.h: convert, check, choose a backend, run it. Exceptions end here.
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "backends/register.h"
#include "capi/convert.h"
#include "core/error.h"
#include "device/cpu_device.h"
#include "lathe/lathe.h"
#include "ops/mla_attention.h"

namespace lathe::capi {
namespace {

constexpr std::uintptr_t kWorkspaceAlignment = 256;

// A valid call that no backend can compute.
class Unsupported : public Error {
 public:
  using Error::Error;
};

std::string& last_error() noexcept {
  thread_local std::string text;
  return text;
}

lathe_status failure(lathe_status status, const char* text) noexcept {
  try {
    last_error() = text;
  } catch (...) {
    last_error() = "out of memory";  // short enough to need none
  }
  return status;
}

// Runs body(); an exception becomes its status and this thread's last error.
template <typename Body>
lathe_status guarded(Body&& body) noexcept {
  try {
    body();
    return LATHE_STATUS_SUCCESS;
  } catch (const Unsupported& error) {
    return failure(LATHE_STATUS_UNSUPPORTED, error.what());
  } catch (const DeviceError& error) {
    return failure(LATHE_STATUS_DEVICE_ERROR, error.what());
  } catch (const OutOfMemoryError& error) {
    return failure(LATHE_STATUS_OUT_OF_MEMORY, error.what());
  } catch (const std::bad_alloc&) {
    return failure(LATHE_STATUS_OUT_OF_MEMORY, "out of memory");
  } catch (const Error& error) {
    return failure(LATHE_STATUS_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return failure(LATHE_STATUS_INTERNAL_ERROR, error.what());
  } catch (...) {
    return failure(LATHE_STATUS_INTERNAL_ERROR, "an exception of unknown type");
  }
}

// The caller owns the GPU, its memory and its streams: of the device an op needs only the kind.
class CallersGpu final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cuda; }
  std::string describe() const override { return "the caller's GPU"; }
  void* allocate(std::size_t, const std::string& name) override { fail("{}: the C interface allocates nothing", name); }
  void release(void*, std::size_t) noexcept override {}
  void synchronize(Stream) override { fail("the C interface waits for nothing"); }
  std::size_t peak_memory_bytes() const override { return 0; }

 private:
  void do_copy(const TensorView&, const TensorView&, Stream) override { fail("the C interface copies nothing"); }
  void do_fill_zero(const TensorView&, Stream) override { fail("the C interface fills nothing"); }
};

// The CPU's scratch memory: each thread keeps its own until it ends.
struct CpuScratch {
  std::unique_ptr<Device> device = make_cpu_device();
  Arena arena{*device, "scratch of liblathe"};
};

ops::Context context_on(DeviceKind kind, void* stream) {
  ops::Context context;
  context.stream.handle = stream;
  if (kind == DeviceKind::cpu) {
    thread_local CpuScratch scratch;
    context.device = scratch.device.get();
    context.scratch = &scratch.arena;
  } else {
    static CallersGpu gpu;
    context.device = &gpu;
  }
  return context;
}

template <typename Op>
struct Call {
  Op op;
  ops::Context context;
  ops::MlaAttentionProblem problem;
};

template <typename Args>
auto checked_call(const Args* args, ops::Checked checked) {
  require(args != nullptr, "args is NULL");
  Call<decltype(op_of(*args, checked))> call;
  call.op = op_of(*args, checked);
  call.context = context_on(call.op.q_nope.device, args->stream);
  call.problem = ops::check_mla_attention(call.context, call.op, checked);
  return call;
}

std::string_view name_or_auto(const char* name) { return name == nullptr ? "auto" : name; }

[[noreturn]] void refuse_unsupported(const ops::MlaAttentionProblem& problem, std::string_view obstacles) {
  throw Unsupported(fmt::format(
      "no attention backend for {} {}{} inputs{}, {} sequences, s_q {}, s_k {}, {} heads of {} + {} and {}: {}",
      name_of(problem.dtype), problem.causal ? "causal " : "", problem.packed ? "packed" : "dense",
      problem.deterministic ? ", deterministic" : "", problem.sequences, problem.s_q, problem.s_k, problem.h,
      problem.dn, problem.dr, problem.dv, obstacles));
}

const ops::MlaAttentionBackend& backend_of(const char* name, const ops::MlaAttentionProblem& problem) {
  const ops::MlaAttentionBackend* backend = find_attention_backend(name_or_auto(name), problem);
  if (backend == nullptr) refuse_unsupported(problem, choose_attention_backend(name_or_auto(name), problem).reason);
  return *backend;
}

std::size_t workspace_of(const ops::MlaAttentionBackend& backend, const Call<ops::MlaAttentionForward>& call) {
  return backend.forward_workspace(call.problem);
}
std::size_t workspace_of(const ops::MlaAttentionBackend& backend, const Call<ops::MlaAttentionBackward>& call) {
  return backend.backward_workspace(call.problem);
}

void run_on(const ops::MlaAttentionBackend& backend, const Call<ops::MlaAttentionForward>& call) {
  backend.forward(call.context, call.op);
}
void run_on(const ops::MlaAttentionBackend& backend, const Call<ops::MlaAttentionBackward>& call) {
  backend.backward(call.context, call.op);
}

template <typename Args>
ops::Workspace checked_workspace(const Args& args, std::size_t needed) {
  if (needed > 0) {
    const auto address = reinterpret_cast<std::uintptr_t>(args.workspace);
    require(address != 0, "workspace is NULL, {} bytes are needed", needed);
    require(address % kWorkspaceAlignment == 0, "workspace is at {:#x}, expected a multiple of {} bytes", address,
            kWorkspaceAlignment);
    require(args.workspace_size >= needed, "workspace_size is {}, {} bytes are needed", args.workspace_size, needed);
  }
  return {args.workspace, args.workspace_size, args.clock_counters};
}

template <typename Args>
lathe_status run(const Args* args) noexcept {
  return guarded([&] {
    auto call = checked_call(args, ops::Checked::values);
    const ops::MlaAttentionBackend& backend = backend_of(args->backend, call.problem);
    call.op.workspace = checked_workspace(*args, workspace_of(backend, call));
    run_on(backend, call);
  });
}

template <typename Args>
lathe_status workspace_size(const Args* args, std::size_t* size) noexcept {
  return guarded([&] {
    require(size != nullptr, "size is NULL");
    const auto call = checked_call(args, ops::Checked::shapes);
    *size = workspace_of(backend_of(args->backend, call.problem), call);
  });
}

lathe_status choose(const lathe_mla_forward_args* args, const char** name, const char** reason) noexcept {
  thread_local std::string name_text;
  thread_local std::string reason_text;
  return guarded([&] {
    require(name != nullptr, "name is NULL");
    require(reason != nullptr, "reason is NULL");
    *name = "none";
    *reason = "";
    const auto call = checked_call(args, ops::Checked::shapes);
    AttentionChoice choice = choose_attention_backend(name_or_auto(args->backend), call.problem);
    reason_text = std::move(choice.reason);
    *reason = reason_text.c_str();
    if (choice.backend == nullptr) refuse_unsupported(call.problem, reason_text);
    name_text = choice.backend->name;
    *name = name_text.c_str();
  });
}

}  // namespace
}  // namespace lathe::capi

lathe_status lathe_mla_forward(const lathe_mla_forward_args* args) { return lathe::capi::run(args); }

lathe_status lathe_mla_backward(const lathe_mla_backward_args* args) { return lathe::capi::run(args); }

lathe_status lathe_mla_forward_workspace_size(const lathe_mla_forward_args* args, size_t* size) {
  return lathe::capi::workspace_size(args, size);
}

lathe_status lathe_mla_backward_workspace_size(const lathe_mla_backward_args* args, size_t* size) {
  return lathe::capi::workspace_size(args, size);
}

lathe_status lathe_mla_backend(const lathe_mla_forward_args* args, const char** name, const char** reason) {
  return lathe::capi::choose(args, name, reason);
}

const char* lathe_status_string(lathe_status status) {
  switch (static_cast<int>(status)) {
    case LATHE_STATUS_SUCCESS:
      return "LATHE_STATUS_SUCCESS";
    case LATHE_STATUS_INVALID_ARGUMENT:
      return "LATHE_STATUS_INVALID_ARGUMENT";
    case LATHE_STATUS_UNSUPPORTED:
      return "LATHE_STATUS_UNSUPPORTED";
    case LATHE_STATUS_OUT_OF_MEMORY:
      return "LATHE_STATUS_OUT_OF_MEMORY";
    case LATHE_STATUS_DEVICE_ERROR:
      return "LATHE_STATUS_DEVICE_ERROR";
    case LATHE_STATUS_INTERNAL_ERROR:
      return "LATHE_STATUS_INTERNAL_ERROR";
    default:
      return "unknown lathe_status";
  }
}

const char* lathe_last_error() { return lathe::capi::last_error().c_str(); }

const char* lathe_version() { return LATHE_VERSION; }
