// A device whose memory the host cannot touch, as a GPU's: every page is closed but while the device copies or fills,
// or an op of its table runs. Host code that reads or writes it is killed by SIGSEGV. The ops are the CPU's, in bf16
// too.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "backends/register.h"
#include "device/cpu_device.h"
#include "device/fp32_copies.h"

namespace lathe::testing {

class GuardedDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cuda; }
  std::string describe() const override { return "guarded memory"; }

  void* allocate(std::size_t bytes, const std::string& name) override {
    if (in_use_ + bytes > limit)
      throw OutOfMemoryError(fmt::format("out of memory on the guarded device: {} bytes wanted for {}", bytes, name));
    const std::size_t pages = std::max<std::size_t>(bytes, 1);
    void* data = ::mmap(nullptr, pages, protection(), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(data != MAP_FAILED, "mmap of {} bytes failed", pages);
    blocks_[data] = pages;
    in_use_ += bytes;
    return data;
  }
  void release(void* data, std::size_t bytes) noexcept override {
    ::munmap(data, blocks_.at(data));
    blocks_.erase(data);
    in_use_ -= bytes;
  }
  void synchronize(Stream) override { ++synchronizations; }
  std::size_t peak_memory_bytes() const override { return in_use_; }

  // Opens the memory while it lives; may be nested.
  class Opened {
   public:
    explicit Opened(GuardedDevice& device) : device_(device) { device_.change(1); }
    ~Opened() { device_.change(-1); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

   private:
    GuardedDevice& device_;
  };

  std::size_t limit = ~std::size_t{0} / 2;
  int synchronizations = 0;

 private:
  void do_copy(const TensorView& to, const TensorView& from, Stream stream) override {
    const Opened opened(*this);
    host_->copy(to, from, stream);
  }
  void do_fill_zero(const TensorView& tensor, Stream stream) override {
    const Opened opened(*this);
    host_->fill_zero(tensor, stream);
  }

  int protection() const { return open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE; }
  void change(int by) {
    open_ += by;
    for (const auto& [data, bytes] : blocks_)
      if (::mprotect(data, bytes, protection()) != 0) std::abort();
  }

  std::unique_ptr<Device> host_ = make_cpu_device();
  std::map<void*, std::size_t> blocks_;
  std::size_t in_use_ = 0;
  int open_ = 0;
};

// An op of the CPU's table on a guarded device.
template <auto kEntry>
struct GuardedOp;
template <typename Params, ops::Implementation<Params> ops::Table::*kEntry>
struct GuardedOp<kEntry> {
  static void run(const ops::Context& context, const Params& params) {
    const GuardedDevice::Opened opened(dynamic_cast<GuardedDevice&>(*context.device));
    run_through_fp32(op_table(DeviceKind::cpu).*kEntry, context, params);
  }
};

inline const ops::Table& guarded_table() {
  using T = ops::Table;
  static const ops::Table table{
      .embedding_forward = GuardedOp<&T::embedding_forward>::run,
      .embedding_backward = GuardedOp<&T::embedding_backward>::run,
      .rms_norm_forward = GuardedOp<&T::rms_norm_forward>::run,
      .rms_norm_backward = GuardedOp<&T::rms_norm_backward>::run,
      .linear_forward = GuardedOp<&T::linear_forward>::run,
      .linear_backward = GuardedOp<&T::linear_backward>::run,
      .grouped_linear_forward = GuardedOp<&T::grouped_linear_forward>::run,
      .grouped_linear_backward = GuardedOp<&T::grouped_linear_backward>::run,
      .swiglu_forward = GuardedOp<&T::swiglu_forward>::run,
      .swiglu_backward = GuardedOp<&T::swiglu_backward>::run,
      .rope = GuardedOp<&T::rope>::run,
      .mla_attention_forward = GuardedOp<&T::mla_attention_forward>::run,
      .mla_attention_backward = GuardedOp<&T::mla_attention_backward>::run,
      .router_forward = GuardedOp<&T::router_forward>::run,
      .router_backward = GuardedOp<&T::router_backward>::run,
      .load_balance = GuardedOp<&T::load_balance>::run,
      .permute_plan = GuardedOp<&T::permute_plan>::run,
      .permute_forward = GuardedOp<&T::permute_forward>::run,
      .permute_backward = GuardedOp<&T::permute_backward>::run,
      .unpermute_forward = GuardedOp<&T::unpermute_forward>::run,
      .unpermute_backward = GuardedOp<&T::unpermute_backward>::run,
      .cross_entropy = GuardedOp<&T::cross_entropy>::run,
      .adamw = GuardedOp<&T::adamw>::run,
      .sum_of_squares = GuardedOp<&T::sum_of_squares>::run,
  };
  return table;
}

}  // namespace lathe::testing
