// One op on two devices: fp64 on the CPU is the oracle, the GPU computes with the same numbers as they are in bf16 or
// fp32.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "device/cuda_check.h"
#include "device/cuda_device.h"
#include "ops/op_testing.h"

namespace lathe::testing {

// The GPU with scratch memory of its own; one for the program.
class GpuContext {
 public:
  static GpuContext& get() {
    static GpuContext context;
    return context;
  }
  const ops::Context& operator*() const { return context_; }
  Device& device() { return *device_; }

  // Fills scratch memory with NaN.
  void poison_scratch() {
    const ArenaScope scope(scratch_);
    const TensorView all = scratch_.take(DType::i32, {std::int64_t{16} << 20});
    check_cuda(cudaMemset(all.data, 0xff, all.bytes()), "cudaMemset");
  }
  void synchronize() { device_->synchronize({}); }

 private:
  GpuContext() : device_(make_cuda_device(0)), scratch_(*device_, "scratch") {
    context_.table = &op_table(DeviceKind::cuda);
    context_.device = device_.get();
    context_.scratch = &scratch_;
  }

  std::unique_ptr<Device> device_;
  Arena scratch_;
  ops::Context context_;
};

inline bool is_floating(DType dtype) { return dtype != DType::i32 && dtype != DType::i64; }

// A tensor's copy on the GPU, padding included.
class Mirror {
 public:
  explicit Mirror(const TestTensor& host)
      : memory_(GpuContext::get().device(), host.whole().bytes(), "a test's tensor"), whole_(host.whole()) {
    whole_.data = memory_.data();
    whole_.device = DeviceKind::cuda;
    upload(host);
  }
  void upload(const TestTensor& host) { GpuContext::get().device().copy(whole_, host.whole(), {}); }
  // `like` with the contents on the GPU.
  TestTensor download(const TestTensor& like) const {
    TestTensor host = like;
    GpuContext::get().device().copy(host.whole(), whole_, {});
    GpuContext::get().synchronize();
    return host;
  }
  // The same part of this copy that `view` is of the host's tensor.
  TensorView part(const TensorView& view, const TestTensor& host) const {
    TensorView moved = view;
    moved.device = DeviceKind::cuda;
    moved.data = static_cast<std::byte*>(whole_.data) +
                 (static_cast<std::byte*>(view.data) - static_cast<std::byte*>(host.whole().data));
    return moved;
  }

 private:
  Buffer memory_;
  TensorView whole_;
};

// A tensor as the GPU has it (`narrow`) and as the oracle does (`wide`): equal numbers.
class Twin {
 public:
  Twin(DType dtype, std::vector<std::int64_t> shape, std::int64_t padding = 0)
      : Twin(dtype, is_floating(dtype) ? DType::f64 : dtype, std::move(shape), padding) {}
  Twin(DType dtype, DType wide_dtype, std::vector<std::int64_t> shape, std::int64_t padding)
      : narrow(dtype, shape, padding), wide(wide_dtype, shape, padding) {}

  void fill_normal(std::uint64_t seed, double scale = 1.0, double mean = 0.0) {
    narrow.fill_normal(seed, scale, mean);
    wide.set(narrow.values());
  }
  void fill_below(std::uint64_t seed, std::int64_t bound) {
    narrow.fill_below(seed, bound);
    wide.set(narrow.values());
  }
  void fill(double value) {
    narrow.fill(value);
    wide.set(narrow.values());
  }
  void set(const std::vector<double>& values) {
    narrow.set(values);
    wide.set(narrow.values());
  }

  TestTensor narrow, wide;
};

struct Output {
  const char* name;
  Twin* twin;
  double relative;
  double absolute;
};

// How a call names its tensors: on one device or the other.
class OnCpu {
 public:
  TensorView operator()(const Twin& twin) const { return twin.wide.view(); }
};
class OnGpu {
 public:
  explicit OnGpu(const std::vector<const Twin*>& twins) : twins_(twins) {
    for (const Twin* twin : twins) mirrors_.push_back(std::make_unique<Mirror>(twin->narrow));
  }
  TensorView operator()(const Twin& twin) const { return mirror(twin).part(twin.narrow.view(), twin.narrow); }
  TestTensor result(const Twin& twin) const { return mirror(twin).download(twin.narrow); }
  void upload() {
    for (std::size_t i = 0; i < twins_.size(); ++i) mirrors_[i]->upload(twins_[i]->narrow);
  }

 private:
  const Mirror& mirror(const Twin& twin) const {
    for (std::size_t i = 0; i < twins_.size(); ++i)
      if (twins_[i] == &twin) return *mirrors_[i];
    fail("a tensor of the test is on no list");
  }

  std::vector<const Twin*> twins_;
  std::vector<std::unique_ptr<Mirror>> mirrors_;
};

// Runs call(context, at) on the CPU and twice on the GPU: outputs within their bounds and equal bit for bit, inputs as
// they were.
template <typename Call>
void expect_same_on_gpu(const std::vector<const Twin*>& inputs, const std::vector<Output>& outputs, Call&& call) {
  CpuContext cpu;
  call(*cpu, OnCpu());
  std::vector<const Twin*> all = inputs;
  for (const Output& output : outputs) all.push_back(output.twin);
  OnGpu gpu(all);
  std::vector<TestTensor> first;
  for (const bool again : {false, true}) {
    GpuContext::get().poison_scratch();
    if (again) gpu.upload();
    call(*GpuContext::get(), gpu);
    GpuContext::get().synchronize();
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const Output& output = outputs[i];
      const TestTensor result = gpu.result(*output.twin);
      if (again) {
        EXPECT_TRUE(result.same_bits(first[i])) << output.name << " differs in the second run";
        continue;
      }
      first.push_back(result);
      EXPECT_TRUE(is_close(result, output.twin->wide.values(), output.relative, output.absolute)) << output.name;
    }
  }
  for (std::size_t i = 0; i < inputs.size(); ++i)
    EXPECT_TRUE(gpu.result(*inputs[i]).same_bits(inputs[i]->narrow)) << "input " << i << " was written";
}

// What storing an element may cost: twice the half unit in its last place.
inline double storage(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 0x1p-23; }

// The types of a call: of its tensors, and of the gradients of parameters.
struct Types {
  DType tensors;
  DType gradients;
};
inline const std::vector<Types>& all_types() {
  static const std::vector<Types> types{
      {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};
  return types;
}
inline std::string describe(const Types& types) {
  return fmt::format("{} with {} gradients", name_of(types.tensors), name_of(types.gradients));
}

}  // namespace lathe::testing
