// Attention as the table of ops has it: the plain kernels for any head sizes, Hopper's where they can take the call.
#include <cmath>
#include <iterator>

#include "cases/mla_attention_cases.h"
#include "ops/cuda/twin_testing.h"
#include "ops/mla_attention_testing.h"

namespace lathe::testing {
namespace {

std::vector<TestTensor*> tensors_of(AttentionTensors& t) {
  return {&t.q, &t.kv, &t.k_pe, &t.out, &t.dout, &t.dq, &t.dkv, &t.dk_pe, &t.lse, &t.dlse, &t.cu_q, &t.cu_k};
}

// The tensors of a call on the GPU.
class OnDevice {
 public:
  explicit OnDevice(AttentionTensors& host) : host_(tensors_of(host)) {
    for (const TestTensor* tensor : host_) mirrors_.push_back(std::make_unique<Mirror>(*tensor));
  }
  void move(TensorView& view) const {
    if (!view) return;
    view.device = DeviceKind::cuda;
    if (view.numel() == 0) return;  // stands anywhere
    for (std::size_t i = 0; i < host_.size(); ++i) {
      const auto* begin = static_cast<const std::byte*>(host_[i]->whole().data);
      const auto* at = static_cast<const std::byte*>(view.data);
      if (at < begin || at >= begin + host_[i]->whole().bytes()) continue;
      view = mirrors_[i]->part(view, *host_[i]);
      return;
    }
    fail("a view lies in no tensor of the test");
  }
  void download() {
    for (std::size_t i = 0; i < host_.size(); ++i) *host_[i] = mirrors_[i]->download(*host_[i]);
  }

 private:
  std::vector<TestTensor*> host_;
  std::vector<std::unique_ptr<Mirror>> mirrors_;
};

// Forward and backward on the GPU; the results lie in the host's tensors afterwards.
void run_on_gpu(AttentionTensors& tensors) {
  OnDevice device(tensors);
  ops::MlaAttentionForward f = tensors.forward();
  for (TensorView* view :
       {&f.q_nope, &f.q_pe, &f.k_nope, &f.k_pe, &f.v, &f.out, &f.lse, &f.cu_seqlens_q, &f.cu_seqlens_k})
    device.move(*view);
  ops::MlaAttentionBackward b = tensors.backward();
  b.deterministic = true;  // as training asks
  for (TensorView* view : {&b.q_nope, &b.q_pe, &b.k_nope, &b.k_pe, &b.v, &b.out, &b.lse, &b.dout, &b.dlse, &b.dq_nope,
                           &b.dq_pe, &b.dk_nope, &b.dv, &b.dk_pe, &b.cu_seqlens_q, &b.cu_seqlens_k})
    device.move(*view);
  GpuContext::get().poison_scratch();
  ops::mla_attention_forward(*GpuContext::get(), f);
  ops::mla_attention_backward(*GpuContext::get(), b);
  GpuContext::get().synchronize();
  device.download();
}

// The oracle's results for the inputs that `narrow` holds.
AttentionResults expected_of(const AttentionTensors& narrow) {
  AttentionTensors wide(narrow.shape, DType::f64);
  wide.q.set(narrow.q.values());
  wide.kv.set(narrow.kv.values());
  wide.k_pe.set(narrow.k_pe.values());
  wide.dout.set(narrow.dout.values());
  wide.dlse.set(narrow.dlse.values());
  CpuContext cpu;
  wide.run(*cpu);
  return wide.results();
}

// Each tensor within 5% of its own root mean square beside 2^-6 of the value.
void expect_close_by_size(const AttentionResults& actual, const AttentionResults& expected) {
  constexpr std::vector<double> AttentionResults::*kTensors[] = {
      &AttentionResults::out,     &AttentionResults::lse,   &AttentionResults::dq_nope, &AttentionResults::dq_pe,
      &AttentionResults::dk_nope, &AttentionResults::dk_pe, &AttentionResults::dv};
  for (std::size_t i = 0; i < std::size(kTensors); ++i) {
    const std::vector<double>& values = expected.*kTensors[i];
    double squares = 0;
    for (const double value : values) squares += value * value;
    const double size = std::sqrt(squares / static_cast<double>(values.size()));
    EXPECT_TRUE(is_close(actual.*kTensors[i], values, 0x1p-6, 0.05 * size)) << "tensor " << i;
  }
}

// bf16 with head sizes 128 + 64 and 128 in rows of whole 16 bytes: what the Hopper kernels take.
TEST(CudaAttention, RealHeadsInAlignedRows) {
  constexpr DType kType = DType::bf16;
  for (const bool causal : {false, true}) {
    const cases::MlaAttentionCase c{"Lite", 2, 300, 300, 3, 128, 64, 128, causal};
    AttentionTensors tensors(c, kType);
    tensors.q = tensors.tokens(kType, c.s_q, c.h, c.dn + c.dr, 8);
    tensors.kv = tensors.tokens(kType, c.s_k, c.h, c.dn + c.dv, 8);
    tensors.k_pe = tensors.tokens(kType, c.s_k, 1, c.dr, 8);
    tensors.out = tensors.tokens(kType, c.s_q, c.h, c.dv, 8);
    tensors.dq = tensors.tokens(kType, c.s_q, c.h, c.dn + c.dr, 8);
    tensors.dkv = tensors.tokens(kType, c.s_k, c.h, c.dn + c.dv, 8);
    tensors.dk_pe = tensors.tokens(kType, c.s_k, 1, c.dr, 8);
    tensors.q.fill_normal(1);
    tensors.kv.fill_normal(2);
    tensors.k_pe.fill_normal(3);
    AttentionTensors again = tensors;
    run_on_gpu(tensors);
    run_on_gpu(again);
    expect_close_by_size(tensors.results(), expected_of(tensors));
    EXPECT_TRUE(tensors.gaps_are_intact());
    for (std::size_t i = 0; i < tensors_of(tensors).size(); ++i)
      EXPECT_TRUE(tensors_of(tensors)[i]->same_bits(*tensors_of(again)[i])) << "tensor " << i << " differs";
  }
}

TEST(CudaAttention, ForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const cases::MlaAttentionCase& c : cases::mla_attention_cases()) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " " + c.name);
      AttentionTensors narrow(c, dtype), again(c, dtype);
      const AttentionResults expected = expected_of(narrow);
      const TestTensor q = narrow.q, kv = narrow.kv, k_pe = narrow.k_pe, dout = narrow.dout;
      run_on_gpu(narrow);
      run_on_gpu(again);
      const bool short_storage = dtype == DType::bf16;
      expect_close(narrow.results(), expected, short_storage ? 0x1p-7 : 2e-5, short_storage ? 0.03 : 2e-5);
      EXPECT_TRUE(narrow.gaps_are_intact());
      for (std::size_t i = 0; i < tensors_of(narrow).size(); ++i)
        EXPECT_TRUE(tensors_of(narrow)[i]->same_bits(*tensors_of(again)[i])) << "tensor " << i << " differs";
      EXPECT_TRUE(narrow.q.same_bits(q) && narrow.kv.same_bits(kv) && narrow.k_pe.same_bits(k_pe) &&
                  narrow.dout.same_bits(dout))
          << "an input was written";
    }
}

}  // namespace
}  // namespace lathe::testing
