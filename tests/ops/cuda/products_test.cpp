// Linear layers and grouped ones.
#include <cmath>

#include "cases/grouped_linear_cases.h"
#include "cases/linear_cases.h"
#include "ops/cuda/twin_testing.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"

namespace lathe::testing {
namespace {

// What fp32 may be off by for a sum of `terms` products of normal numbers; tensor cores cut sums off where others
// round.
double rounding(std::int64_t terms) { return 6e-7 * (8 + static_cast<double>(terms)); }

// Kernels that cuBLASLt takes for aligned rows round a product to the result's type before they add what was there:
// half a unit in the last place of a sum of `terms` products, 5 standard deviations large.
double rounding_before_addition(DType result, std::int64_t terms) {
  return result == DType::bf16 ? 0x1p-8 * 5 * std::sqrt(static_cast<double>(terms)) : 0;
}

std::vector<cases::LinearCase> linear_cases() {
  std::vector<cases::LinearCase> cases = cases::linear_cases();
  cases.push_back({"Vectors", 200, 128, 192, 8});
  cases.push_back({"Router", 500, 2048, 64, 0});
  cases.push_back({"Hidden", 256, 2048, 3072, 0});
  cases.push_back({"HalfRows", 130, 64, 520, 520});  // as the head's gradient lies, in the front halves of its rows
  return cases;
}

TEST(CudaLinear, Forward) {
  for (const Types& types : all_types())  // here the second type is the output's
    for (const auto& c : linear_cases())
      for (const bool with_bias : {false, true})
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(describe(types) + " " + c.name + (with_bias ? ", bias" : "") + (accumulate ? ", added" : ""));
          Twin x(types.tensors, {c.rows, c.in}, c.padding), weight(types.tensors, {c.out, c.in}, c.padding);
          Twin bias(types.tensors, {c.out}), out(types.gradients, {c.rows, c.out}, c.padding);
          x.fill_normal(1);
          weight.fill_normal(2);
          bias.fill_normal(3);
          if (accumulate) out.fill_normal(4);
          const double e = storage(types.gradients);
          const double added = (with_bias && accumulate ? 6 * e : 0) +
                               (with_bias || accumulate ? rounding_before_addition(types.gradients, c.in) : 0);
          expect_same_on_gpu({&x, &weight, &bias}, {{"out", &out, e, rounding(c.in) + added}},
                             [&](const ops::Context& context, auto&& at) {
                               ops::linear_forward(context, {.x = at(x),
                                                             .weight = at(weight),
                                                             .bias = with_bias ? at(bias) : TensorView{},
                                                             .out = at(out),
                                                             .accumulate = accumulate});
                             });
        }
}

TEST(CudaLinear, Backward) {
  for (const Types& types : all_types())
    for (const auto& c : linear_cases())
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(describe(types) + " " + c.name + (accumulate ? ", added" : ""));
        const DType dtype = types.tensors;
        Twin x(dtype, {c.rows, c.in}, c.padding), weight(dtype, {c.out, c.in}, c.padding);
        Twin dout(dtype, {c.rows, c.out}, c.padding), dx(dtype, {c.rows, c.in}, c.padding);
        Twin dweight(types.gradients, {c.out, c.in}, c.padding), dbias(types.gradients, {c.out});
        x.fill_normal(1);
        weight.fill_normal(2);
        dout.fill_normal(3);
        dweight.fill_normal(4);
        dbias.fill_normal(5);
        if (accumulate) dx.fill_normal(6);
        const double e = storage(types.gradients);
        expect_same_on_gpu(
            {&x, &weight, &dout},
            {{"dx", &dx, storage(dtype), rounding(c.out) + (accumulate ? rounding_before_addition(dtype, c.out) : 0)},
             {"dweight", &dweight, e, rounding(c.rows) + rounding_before_addition(types.gradients, c.rows)},
             {"dbias", &dbias, e, rounding(c.rows)}},
            [&](const ops::Context& context, auto&& at) {
              ops::linear_backward(context, {.dout = at(dout),
                                             .x = at(x),
                                             .weight = at(weight),
                                             .dx = at(dx),
                                             .accumulate_dx = accumulate,
                                             .dweight = at(dweight),
                                             .dbias = at(dbias)});
            });
      }
}

// The head and the router: an fp32 gradient of the output beside bf16 tensors is rounded to bf16 once.
TEST(CudaLinear, BackwardOfAnFp32Gradient) {
  for (const auto& c : linear_cases()) {
    SCOPED_TRACE(c.name);
    Twin x(DType::bf16, {c.rows, c.in}, c.padding), weight(DType::bf16, {c.out, c.in}, c.padding);
    Twin dout(DType::f32, {c.rows, c.out}, c.padding), dx(DType::bf16, {c.rows, c.in}, c.padding);
    Twin dweight(DType::f32, {c.out, c.in}, c.padding);
    x.fill_normal(1);
    weight.fill_normal(2);
    dout.fill_normal(3);
    dweight.fill_normal(4);
    const auto rounded_sum = [](std::int64_t terms) {
      return 0x1p-8 * 8 * std::sqrt(1.0 + static_cast<double>(terms));
    };
    expect_same_on_gpu(
        {&x, &weight, &dout}, {{"dx", &dx, 0x1p-8, rounded_sum(c.out)}, {"dweight", &dweight, 0, rounded_sum(c.rows)}},
        [&](const ops::Context& context, auto&& at) {
          ops::linear_backward(
              context, {.dout = at(dout), .x = at(x), .weight = at(weight), .dx = at(dx), .dweight = at(dweight)});
        });
  }
}

std::vector<cases::GroupedLinearCase> grouped_cases() {
  std::vector<cases::GroupedLinearCase> cases = cases::grouped_linear_cases();
  cases.push_back({"Vectors", {0, 3, 130, 0, 128, 1, 257, 0}, 5, 72, 136, 8});
  cases.push_back({"Tiles", {128, 256, 64}, 0, 128, 256, 0});
  cases.push_back({"Deep", {700, 0, 33}, 0, 264, 40, 0});
  // Groups around the steps of a sum and the halves of a tile; NaN right behind the last one.
  cases.push_back({"Groups", {0, 768, 1, 63, 64, 192, 129, 0, 65}, 5, 264, 392, 8});
  cases.push_back({"HalfTile", {192, 65}, 3, 384, 1408, 0});
  // Several tiles of the weight's gradient for every block of a GPU.
  cases::GroupedLinearCase turns{"Turns", {}, 9, 520, 640, 0};
  for (std::int32_t group = 0; group < 40; ++group) turns.rows.push_back(group * 37 % 100);
  cases.push_back(turns);
  return cases;
}

TEST(CudaGroupedLinear, ForwardAndBackward) {
  for (const Types& types : all_types())
    for (const auto& c : grouped_cases()) {
      SCOPED_TRACE(describe(types) + " " + c.name);
      const DType dtype = types.tensors;
      std::vector<double> starts{0};
      std::int64_t most = 0;
      for (const std::int32_t rows : c.rows) {
        starts.push_back(starts.back() + rows);
        most = std::max<std::int64_t>(most, rows);
      }
      const auto groups = static_cast<std::int64_t>(c.rows.size());
      const auto used = static_cast<std::int64_t>(starts.back());
      const std::int64_t rows = used + c.unused_rows;
      Twin offsets(DType::i32, {groups + 1});
      Twin x(dtype, {rows, c.in}, c.padding), weight(dtype, {groups, c.out, c.in}, c.padding);
      Twin out(dtype, {rows, c.out}, c.padding), dout(dtype, {rows, c.out}, c.padding);
      Twin dx(dtype, {rows, c.in}, c.padding), dweight(types.gradients, {groups, c.out, c.in}, c.padding);
      offsets.set(starts);
      x.fill_normal(1);
      weight.fill_normal(2);
      dout.fill_normal(3);
      dweight.fill_normal(4);
      // Rows behind the last group are NaN and must stay out of every sum; those of the outputs must stay NaN.
      for (Twin* twin : {&x, &dout})
        for (TestTensor* tensor : {&twin->narrow, &twin->wide}) {
          const TensorView rest = tensor->view().slice(0, used, c.unused_rows);
          for_each_element(rest, [&](std::int64_t offset, std::int64_t) {
            store(rest, offset, std::numeric_limits<double>::quiet_NaN());
          });
        }
      expect_same_on_gpu({&offsets, &x, &weight}, {{"out", &out, storage(dtype), rounding(c.in)}},
                         [&](const ops::Context& context, auto&& at) {
                           ops::grouped_linear_forward(
                               context, {.x = at(x), .weight = at(weight), .offsets = at(offsets), .out = at(out)});
                         });
      expect_same_on_gpu({&offsets, &x, &weight, &dout},
                         {{"dx", &dx, storage(dtype), rounding(c.out)},
                          {"dweight", &dweight, storage(types.gradients), rounding(most)}},
                         [&](const ops::Context& context, auto&& at) {
                           ops::grouped_linear_backward(context, {.dout = at(dout),
                                                                  .x = at(x),
                                                                  .weight = at(weight),
                                                                  .offsets = at(offsets),
                                                                  .dx = at(dx),
                                                                  .dweight = at(dweight)});
                         });
    }
}

}  // namespace
}  // namespace lathe::testing
