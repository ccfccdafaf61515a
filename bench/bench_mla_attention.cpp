// Attention forward and backward in fp32. GFLOP/s count the products of the query-key pairs that see each other.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "backends/register.h"
#include "cases/mla_attention_cases.h"
#include "core/philox.h"
#include "device/cpu_device.h"
#include "ops/mla_attention.h"

namespace lathe {
namespace {

using cases::MlaAttentionCase;

// Tensors as the model has them: q, kv and their gradients hold the parts side by side.
class Attention {
 public:
  explicit Attention(const MlaAttentionCase& shape) : shape_(shape), device_(make_cpu_device()) {
    const TensorView q = tokens(shape.s_q, shape.h, shape.dn + shape.dr);
    const TensorView kv = tokens(shape.s_k, shape.h, shape.dn + shape.dv);
    const TensorView k_pe = tokens(shape.s_k, 1, shape.dr);
    const TensorView dq = tokens(shape.s_q, shape.h, shape.dn + shape.dr);
    const TensorView dkv = tokens(shape.s_k, shape.h, shape.dn + shape.dv);
    const TensorView stats = shape.packed() ? floats({shape.h, shape.s_q}) : floats({shape.b, shape.h, shape.s_q});
    forward_.q_nope = first(q, shape.dn);
    forward_.q_pe = last(q, shape.dr);
    forward_.k_nope = first(kv, shape.dn);
    forward_.k_pe = k_pe;
    forward_.v = last(kv, shape.dv);
    forward_.out = tokens(shape.s_q, shape.h, shape.dv);
    forward_.lse = stats;
    forward_.cu_seqlens_q = offsets(shape.q_lengths);
    forward_.cu_seqlens_k = offsets(shape.k_lengths);
    forward_.softmax_scale = 0.1;
    forward_.causal = shape.causal;
    backward_.q_nope = forward_.q_nope;
    backward_.q_pe = forward_.q_pe;
    backward_.k_nope = forward_.k_nope;
    backward_.k_pe = k_pe;
    backward_.v = forward_.v;
    backward_.out = forward_.out;
    backward_.lse = stats;
    backward_.dout = tokens(shape.s_q, shape.h, shape.dv);
    backward_.dq_nope = first(dq, shape.dn);
    backward_.dq_pe = last(dq, shape.dr);
    backward_.dk_nope = first(dkv, shape.dn);
    backward_.dv = last(dkv, shape.dv);
    backward_.dk_pe = tokens(shape.s_k, 1, shape.dr);
    backward_.cu_seqlens_q = forward_.cu_seqlens_q;
    backward_.cu_seqlens_k = forward_.cu_seqlens_k;
    backward_.softmax_scale = forward_.softmax_scale;
    backward_.causal = shape.causal;
    context_ = {&op_table(DeviceKind::cpu), device_.get(), {}, &scratch_};
  }

  void forward() { ops::mla_attention_forward(context_, forward_); }
  void backward() { ops::mla_attention_backward(context_, backward_); }

  double forward_flops() const { return 2 * pairs() * static_cast<double>(qk() + shape_.dv); }
  double backward_flops() const { return 2 * pairs() * static_cast<double>(3 * qk() + 2 * shape_.dv); }

 private:
  std::int64_t qk() const { return shape_.dn + shape_.dr; }

  // Pairs of query and key that see each other, over all heads.
  double pairs() const {
    double count = 0;
    const auto add = [&](std::int64_t q, std::int64_t k) {
      for (std::int64_t i = 0; i < q; ++i)
        count += static_cast<double>(shape_.causal ? std::clamp<std::int64_t>(i + 1 + k - q, 0, k) : k);
    };
    for (std::int64_t i = 0; i < shape_.b; ++i) add(shape_.s_q, shape_.s_k);
    for (std::size_t i = 0; i < shape_.q_lengths.size(); ++i) add(shape_.q_lengths[i], shape_.k_lengths[i]);
    return count * static_cast<double>(shape_.h);
  }

  TensorView floats(std::initializer_list<std::int64_t> dims) {
    TensorView view = TensorView::contiguous(nullptr, DType::f32, dims);
    Buffer& buffer = memory_.emplace_back(*device_, view.bytes(), "benchmark");
    view.data = buffer.data();
    const Philox random(memory_.size());
    for (std::int64_t i = 0; i < view.numel(); ++i)
      view.as<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    return view;
  }
  TensorView tokens(std::int64_t s, std::int64_t heads, std::int64_t d) {
    return shape_.packed() ? floats({s, heads, d}) : floats({shape_.b, s, heads, d});
  }
  TensorView offsets(const std::vector<std::int32_t>& lengths) {
    if (lengths.empty()) return {};
    const TensorView view = floats({static_cast<std::int64_t>(lengths.size()) + 1});
    auto* values = static_cast<std::int32_t*>(view.data);
    values[0] = 0;
    std::partial_sum(lengths.begin(), lengths.end(), values + 1);
    return TensorView::contiguous(values, DType::i32, {view.shape[0]});
  }
  static TensorView first(const TensorView& view, std::int64_t d) { return view.slice(view.rank - 1, 0, d); }
  static TensorView last(const TensorView& view, std::int64_t d) {
    return view.slice(view.rank - 1, view.shape[static_cast<std::size_t>(view.rank - 1)] - d, d);
  }

  MlaAttentionCase shape_;
  std::unique_ptr<Device> device_;
  Arena scratch_{*device_, "scratch"};
  std::vector<Buffer> memory_;
  ops::MlaAttentionForward forward_;
  ops::MlaAttentionBackward backward_;
  ops::Context context_;
};

void run(benchmark::State& state, const MlaAttentionCase& shape, bool backward) {
  Attention attention(shape);
  attention.forward();
  for (auto _ : state) backward ? attention.backward() : attention.forward();
  const double flops = backward ? attention.backward_flops() : attention.forward_flops();
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  for (const auto& shape : lathe::cases::mla_attention_bench_cases())
    for (const bool backward : {false, true})
      benchmark::RegisterBenchmark((shape.name + (backward ? "/backward" : "/forward")).c_str(),
                                   [=](benchmark::State& state) { lathe::run(state, shape, backward); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
