// The loss at one end of a step and the update at the other.
#include "cases/cross_entropy_cases.h"
#include "cases/elementwise_cases.h"
#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/cuda/twin_testing.h"
#include "ops/global_norm.h"

namespace lathe::testing {
namespace {

// A bf16 gradient in the front half of each row of logits is the one that has memory of its own, which `apart` is like.
void expect_same_in_the_front_halves(const TestTensor& logits, const TestTensor& targets, double scale,
                                     const TestTensor& apart) {
  const Mirror logits_there(logits), targets_there(targets), apart_there(apart);
  TestTensor loss(DType::f64, {1});
  loss.fill(0);
  const Mirror loss_there(loss);
  const TensorView on_gpu = logits_there.part(logits.view(), logits);
  TensorView halves = on_gpu;
  halves.dtype = DType::bf16;
  halves.strides[0] *= 2;
  for (const TensorView& dlogits : {apart_there.part(apart.view(), apart), halves})
    ops::cross_entropy(*GpuContext::get(), {.logits = on_gpu,
                                            .targets = targets_there.part(targets.view(), targets),
                                            .scale = scale,
                                            .loss = loss_there.part(loss.view(), loss),
                                            .dlogits = dlogits});
  const TestTensor expected = apart_there.download(apart);
  const TestTensor written = logits_there.download(logits);
  halves.device = DeviceKind::cpu;
  halves.data = written.view().data;
  EXPECT_TRUE(is_close(expected, values_of(halves), 0, 0)) << "bf16 in place";
}

TEST(CudaCrossEntropy, LossAndGradient) {
  std::vector<cases::CrossEntropyCase> cases = cases::cross_entropy_cases();
  cases.push_back({"V2Lite", 64, 102400, 0, 7});
  for (const cases::CrossEntropyCase& c : cases) {
    SCOPED_TRACE(c.name);
    Twin logits(DType::f32, {c.rows, c.vocab}, c.padding), dlogits(DType::f32, {c.rows, c.vocab}, c.padding);
    Twin targets(DType::i32, {c.rows}), loss(DType::f64, {1}), rounded(DType::bf16, {c.rows, c.vocab}, c.padding);
    logits.fill_normal(1, 3);
    targets.fill_below(2, c.vocab);
    if (c.ignore_every > 0) {
      std::vector<double> values = targets.narrow.values();
      for (std::size_t t = 0; t < values.size(); ++t)
        if ((static_cast<std::int64_t>(t) + 1) % c.ignore_every == 0) values[t] = ops::kIgnoreIndex;
      targets.set(values);
    }
    loss.fill(0.5);
    const double scale = 1.0 / static_cast<double>(std::max<std::int64_t>(c.rows, 1));
    const auto run = [&](const Twin* to) {
      return [&, to](const ops::Context& context, auto&& at) {
        ops::cross_entropy(context, {.logits = at(logits),
                                     .targets = at(targets),
                                     .scale = scale,
                                     .loss = at(loss),
                                     .dlogits = to != nullptr ? at(*to) : TensorView{}});
      };
    };
    const Output sum{"loss", &loss, 1e-5, 1e-6};
    expect_same_on_gpu({&logits, &targets}, {sum}, run(nullptr));
    loss.fill(0.5);
    expect_same_on_gpu({&logits, &targets}, {sum, {"dlogits", &dlogits, 2e-5, 1e-7 * scale}}, run(&dlogits));
    loss.fill(0.5);
    expect_same_on_gpu({&logits, &targets}, {sum, {"bf16 dlogits", &rounded, 2e-5 + 0x1p-8, 1e-7 * scale}},
                       run(&rounded));
    expect_same_in_the_front_halves(logits.narrow, targets.narrow, scale, rounded.narrow);
    loss.fill(0.5);
    expect_same_on_gpu({&targets}, {sum, {"in place", &logits, 2e-5, 1e-7 * scale}}, run(&logits));
  }
}

TEST(CudaAdamW, EqualsTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const DType gradients : {DType::f32, DType::bf16})
      for (const cases::ElementwiseCase& c : cases::elementwise_cases()) {
        SCOPED_TRACE(std::string(name_of(dtype)) + ", gradients " + std::string(name_of(gradients)) + " " + c.name);
        Twin parameter(dtype, {c.count}), gradient(gradients, {c.count}), m(dtype, {c.count}), v(dtype, {c.count});
        Twin rounded(DType::bf16, DType::bf16, {c.count}, 0);
        parameter.fill_normal(1);
        gradient.fill_normal(2);
        m.fill_normal(3, 0.1);
        v.fill_normal(4, 0.02, 0.1);
        const double e = storage(dtype);
        // The copy is rounded from the GPU's own parameter, which differs from the oracle's in its last places.
        expect_same_on_gpu({&gradient},
                           {{"parameter", &parameter, e, 1e-6},
                            {"m", &m, e, 1e-6},
                            {"v", &v, e, 1e-7},
                            {"rounded", &rounded, 0x1p-7, 1e-6}},
                           [&](const ops::Context& context, auto&& at) {
                             ops::adamw(context, {.parameter = at(parameter),
                                                  .gradient = at(gradient),
                                                  .m = at(m),
                                                  .v = at(v),
                                                  .rounded = at(rounded),
                                                  .grad_scale = 0.5,
                                                  .lr = 1e-2,
                                                  .weight_decay = 0.1,
                                                  .step = 3});
                           });
      }
}

TEST(CudaSumOfSquares, EqualsTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t count : {0, 1, 37, 50001, 3000000}) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " " + std::to_string(count));
      Twin x(dtype, {count}), out(DType::f64, {1});
      x.fill_normal(1);
      out.fill(2);
      expect_same_on_gpu({&x}, {{"out", &out, 1e-13, 0}}, [&](const ops::Context& context, auto&& at) {
        ops::sum_of_squares(context, {.x = at(x), .out = at(out)});
      });
    }
}

}  // namespace
}  // namespace lathe::testing
