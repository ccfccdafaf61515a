// Times of the dense ops on the shapes of `make quickstart`, fp32: GFLOP/s of the matrix products, GB/s of the rest.
#include <benchmark/benchmark.h>

#include <functional>
#include <numeric>

#include "backends/register.h"
#include "cases/cross_entropy_cases.h"
#include "cases/elementwise_cases.h"
#include "cases/embedding_cases.h"
#include "cases/grouped_linear_cases.h"
#include "cases/linear_cases.h"
#include "cases/rms_norm_cases.h"
#include "cases/swiglu_cases.h"
#include "core/philox.h"
#include "device/cpu_device.h"
#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/global_norm.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/swiglu.h"

namespace lathe {
namespace {

// A context, and tensors with normal numbers.
class Bench {
 public:
  Bench() : device_(make_cpu_device()), tensors_(*device_, "tensors"), scratch_(*device_, "scratch") {
    context_.table = &op_table(DeviceKind::cpu);
    context_.device = device_.get();
    context_.scratch = &scratch_;
  }
  const ops::Context& context() const { return context_; }

  TensorView tensor(std::initializer_list<std::int64_t> shape) {
    const TensorView view = tensors_.take(DType::f32, shape);
    const Philox random(++seed_);
    for (std::int64_t i = 0; i < view.numel(); ++i)
      view.as<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    return view;
  }
  // Rows of `width` elements, `padding` apart.
  TensorView rows(std::int64_t count, std::int64_t width, std::int64_t padding) {
    return tensor({count, width + padding}).slice(1, 0, width);
  }
  TensorView integers(std::int64_t count, std::int64_t bound) {
    const TensorView view = tensors_.take(DType::i32, {count});
    const Philox random(++seed_);
    for (std::int64_t i = 0; i < count; ++i)
      view.as<std::int32_t>()[i] =
          static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound)));
    return view;
  }
  TensorView scalar() { return tensors_.take(DType::f64, {1}); }

 private:
  std::unique_ptr<Device> device_;
  Arena tensors_;
  Arena scratch_;
  ops::Context context_;
  std::uint64_t seed_ = 0;
};

// What one call does, for the rate that is printed.
struct Work {
  double flops = 0;
  double bytes = 0;  // read and written once
};

// `setup` makes the tensors and returns the call to time.
void add(const std::string& name, Work work, const std::function<std::function<void()>(Bench&)>& setup) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [=](benchmark::State& state) {
                                 Bench bench;
                                 const std::function<void()> call = setup(bench);
                                 call();
                                 for (auto _ : state) call();
                                 const auto rate = [](double amount) {
                                   return benchmark::Counter(amount * 1e-9,
                                                             benchmark::Counter::kIsIterationInvariantRate);
                                 };
                                 if (work.flops > 0) state.counters["GFLOP/s"] = rate(work.flops);
                                 if (work.bytes > 0) state.counters["GB/s"] = rate(work.bytes);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

double as_double(std::int64_t value) { return static_cast<double>(value); }

void add_linear(const cases::LinearCase& c) {
  const double flops = 2.0 * as_double(c.rows * c.in * c.out);
  add("linear_forward/" + c.name, {.flops = flops}, [c](Bench& bench) {
    const ops::LinearForward op{.x = bench.rows(c.rows, c.in, c.padding),
                                .weight = bench.tensor({c.out, c.in}),
                                .out = bench.rows(c.rows, c.out, c.padding)};
    return [&bench, op] { ops::linear_forward(bench.context(), op); };
  });
  add("linear_backward/" + c.name, {.flops = 2 * flops}, [c](Bench& bench) {
    const ops::LinearBackward op{.dout = bench.rows(c.rows, c.out, c.padding),
                                 .x = bench.rows(c.rows, c.in, c.padding),
                                 .weight = bench.tensor({c.out, c.in}),
                                 .dx = bench.rows(c.rows, c.in, c.padding),
                                 .dweight = bench.tensor({c.out, c.in})};
    return [&bench, op] { ops::linear_backward(bench.context(), op); };
  });
}

TensorView offsets_of(Bench& bench, const cases::GroupedLinearCase& c) {
  const TensorView offsets = bench.integers(std::ssize(c.rows) + 1, 1);
  std::partial_sum(c.rows.begin(), c.rows.end(), offsets.as<std::int32_t>() + 1);
  return offsets;
}

void add_grouped_linear(const cases::GroupedLinearCase& c) {
  const std::int64_t rows = std::accumulate(c.rows.begin(), c.rows.end(), std::int64_t{0});
  const double flops = 2.0 * as_double(rows * c.in * c.out);
  add("grouped_linear_forward/" + c.name, {.flops = flops}, [c, rows](Bench& bench) {
    const ops::GroupedLinearForward op{.x = bench.tensor({rows, c.in}),
                                       .weight = bench.tensor({std::ssize(c.rows), c.out, c.in}),
                                       .offsets = offsets_of(bench, c),
                                       .out = bench.tensor({rows, c.out})};
    return [&bench, op] { ops::grouped_linear_forward(bench.context(), op); };
  });
  add("grouped_linear_backward/" + c.name, {.flops = 2 * flops}, [c, rows](Bench& bench) {
    const ops::GroupedLinearBackward op{.dout = bench.tensor({rows, c.out}),
                                        .x = bench.tensor({rows, c.in}),
                                        .weight = bench.tensor({std::ssize(c.rows), c.out, c.in}),
                                        .offsets = offsets_of(bench, c),
                                        .dx = bench.tensor({rows, c.in}),
                                        .dweight = bench.tensor({std::ssize(c.rows), c.out, c.in})};
    return [&bench, op] { ops::grouped_linear_backward(bench.context(), op); };
  });
}

void add_embedding(const cases::EmbeddingCase& c) {
  const double rows = 4.0 * as_double(c.tokens * c.hidden);
  add("embedding_forward/" + c.name, {.bytes = 2 * rows}, [c](Bench& bench) {
    const ops::EmbeddingForward op{.tokens = bench.integers(c.tokens, c.vocab),
                                   .table = bench.tensor({c.vocab, c.hidden}),
                                   .out = bench.tensor({c.tokens, c.hidden})};
    return [&bench, op] { ops::embedding_forward(bench.context(), op); };
  });
  add("embedding_backward/" + c.name, {.bytes = 3 * rows}, [c](Bench& bench) {
    const ops::EmbeddingBackward op{.tokens = bench.integers(c.tokens, c.vocab),
                                    .dout = bench.tensor({c.tokens, c.hidden}),
                                    .dtable = bench.tensor({c.vocab, c.hidden})};
    return [&bench, op] { ops::embedding_backward(bench.context(), op); };
  });
}

void add_rms_norm(const cases::RmsNormCase& c) {
  const double matrix = 4.0 * as_double(c.rows * c.width);
  add("rms_norm_forward/" + c.name, {.bytes = (c.residual ? 4 : 2) * matrix}, [c](Bench& bench) {
    ops::RmsNormForward op{.x = bench.rows(c.rows, c.width, c.padding),
                           .weight = bench.tensor({c.width}),
                           .eps = 1e-6,
                           .out = bench.tensor({c.rows, c.width}),
                           .rstd = bench.tensor({c.rows})};
    if (c.residual) op.residual = bench.tensor({c.rows, c.width});
    if (c.residual) op.sum = bench.tensor({c.rows, c.width});
    return [&bench, op] { ops::rms_norm_forward(bench.context(), op); };
  });
  add("rms_norm_backward/" + c.name, {.bytes = (c.residual ? 4 : 3) * matrix}, [c](Bench& bench) {
    ops::RmsNormBackward op{.dout = bench.tensor({c.rows, c.width}),
                            .x = bench.rows(c.rows, c.width, c.padding),
                            .weight = bench.tensor({c.width}),
                            .rstd = bench.tensor({c.rows}),
                            .dx = bench.rows(c.rows, c.width, c.padding),
                            .dweight = bench.tensor({c.width})};
    if (c.residual) op.dsum = bench.tensor({c.rows, c.width});
    return [&bench, op] { ops::rms_norm_backward(bench.context(), op); };
  });
}

void add_swiglu(const cases::SwigluCase& c) {
  const double matrix = 4.0 * as_double(c.rows * c.width);
  add("swiglu_forward/" + c.name, {.bytes = 3 * matrix}, [c](Bench& bench) {
    const ops::SwigluForward op{.gate_up = bench.tensor({c.rows, 2 * c.width}), .out = bench.tensor({c.rows, c.width})};
    return [&bench, op] { ops::swiglu_forward(bench.context(), op); };
  });
  add("swiglu_backward/" + c.name, {.bytes = 5 * matrix}, [c](Bench& bench) {
    const ops::SwigluBackward op{.dout = bench.tensor({c.rows, c.width}),
                                 .gate_up = bench.tensor({c.rows, 2 * c.width}),
                                 .dgate_up = bench.tensor({c.rows, 2 * c.width})};
    return [&bench, op] { ops::swiglu_backward(bench.context(), op); };
  });
}

void add_cross_entropy(const cases::CrossEntropyCase& c) {
  add("cross_entropy/" + c.name, {.bytes = 8.0 * as_double(c.rows * c.vocab)}, [c](Bench& bench) {
    const ops::CrossEntropy op{.logits = bench.tensor({c.rows, c.vocab}),
                               .targets = bench.integers(c.rows, c.vocab),
                               .scale = 1e-3,
                               .loss = bench.scalar(),
                               .dlogits = bench.tensor({c.rows, c.vocab})};
    return [&bench, op] { ops::cross_entropy(bench.context(), op); };
  });
}

void add_elementwise(const cases::ElementwiseCase& c) {
  add("adamw/" + c.name, {.bytes = 7 * 4.0 * as_double(c.count)}, [c](Bench& bench) {
    const ops::AdamW op{.parameter = bench.tensor({c.count}),
                        .gradient = bench.tensor({c.count}),
                        .m = bench.tensor({c.count}),
                        .v = bench.tensor({c.count}),
                        .lr = 1e-3,
                        .weight_decay = 0.1};
    // Second moments are never negative, and roots of NaN would be timed instead.
    for (std::int64_t i = 0; i < c.count; ++i) op.v.as<float>()[i] = 1.0F;
    return [&bench, op] { ops::adamw(bench.context(), op); };
  });
  add("sum_of_squares/" + c.name, {.bytes = 4.0 * as_double(c.count)}, [c](Bench& bench) {
    const ops::SumOfSquares op{.x = bench.tensor({c.count}), .out = bench.scalar()};
    return [&bench, op] { ops::sum_of_squares(bench.context(), op); };
  });
}

void add_all() {
  for (const auto& c : cases::linear_workload()) add_linear(c);
  for (const auto& c : cases::grouped_linear_workload()) add_grouped_linear(c);
  for (const auto& c : cases::embedding_workload()) add_embedding(c);
  for (const auto& c : cases::rms_norm_workload()) add_rms_norm(c);
  for (const auto& c : cases::swiglu_workload()) add_swiglu(c);
  for (const auto& c : cases::cross_entropy_workload()) add_cross_entropy(c);
  for (const auto& c : cases::elementwise_workload()) add_elementwise(c);
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  lathe::add_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
