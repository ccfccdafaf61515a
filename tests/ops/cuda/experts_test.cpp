// The router, its balance loss, and the way to the experts and back.
#include "cases/load_balance_cases.h"
#include "cases/permute_cases.h"
#include "cases/router_cases.h"
#include "ops/cuda/twin_testing.h"
#include "ops/load_balance.h"
#include "ops/permute.h"
#include "ops/router.h"

namespace lathe::testing {
namespace {

TEST(CudaRouter, ForwardAndBackward) {
  std::vector<cases::RouterCase> cases = cases::router_cases();
  cases.push_back({"Tokens", 4096, 64, 6});
  for (const bool force_balanced : {false, true})
    for (const cases::RouterCase& c : cases) {
      SCOPED_TRACE(c.name);
      constexpr DType kType = DType::f32;
      constexpr std::int64_t kPadding = 3;
      Twin logits(kType, {c.tokens, c.num_experts}, kPadding), scores(kType, {c.tokens, c.num_experts}, kPadding);
      Twin indices(DType::i32, {c.tokens, c.k}, kPadding), weights(kType, {c.tokens, c.k}, kPadding);
      Twin dweights(kType, {c.tokens, c.k}, kPadding), dscores(kType, {c.scopes, c.num_experts}, kPadding);
      Twin dlogits(kType, {c.tokens, c.num_experts}, kPadding);
      logits.fill_normal(7, 1.5);
      dweights.fill_normal(8);
      dscores.fill_normal(9);
      const auto route = [&](const Twin& to) {
        return [&](const ops::Context& context, auto&& at) {
          ops::router_forward(context, {.logits = at(logits),
                                        .method = c.method,
                                        .num_groups = c.num_groups,
                                        .topk_group = c.topk_group,
                                        .scaling_factor = c.scaling_factor,
                                        .normalize = c.normalize,
                                        .force_balanced = force_balanced,
                                        .scores = at(to),
                                        .indices = at(indices),
                                        .weights = at(weights)});
        };
      };
      expect_same_on_gpu(
          {&logits},
          {{"scores", &scores, 3e-6, 1e-30}, {"indices", &indices, 0, 0}, {"weights", &weights, 6e-6, 1e-30}},
          route(scores));
      // The backward's inputs: what the forward made.
      scores.set(scores.wide.values());
      indices.set(indices.wide.values());
      for (const bool with_balance : {false, true})
        expect_same_on_gpu({&scores, &indices, &dweights, &dscores},
                           {{"dlogits", &dlogits, 1e-5, 2e-6 * (1 + c.scaling_factor)}},
                           [&](const ops::Context& context, auto&& at) {
                             ops::router_backward(context, {.scores = at(scores),
                                                            .indices = at(indices),
                                                            .dweights = at(dweights),
                                                            .dscores = with_balance ? at(dscores) : TensorView{},
                                                            .scaling_factor = c.scaling_factor,
                                                            .normalize = c.normalize,
                                                            .dlogits = at(dlogits)});
                           });
      expect_same_on_gpu(
          {}, {{"in place", &logits, 3e-6, 1e-30}, {"indices", &indices, 0, 0}, {"weights", &weights, 6e-6, 1e-30}},
          route(logits));
    }
}

// Equal scores, infinities and NaN: the same choice as the CPU's, every index an expert.
TEST(CudaRouter, ChoosesAsTheCpuWhateverTheLogits) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (const cases::RouterCase& c : cases::router_cases())
    for (const double filler : {0.0, 1e30, -1e30, kInf, -kInf, kNan})
      for (const double other : {0.0, -1e30, kInf, -kInf, kNan}) {
        SCOPED_TRACE(c.name + fmt::format(", {} and {}", filler, other));
        Twin logits(DType::f32, {c.tokens, c.num_experts}), scores(DType::f32, {c.tokens, c.num_experts});
        Twin indices(DType::i32, {c.tokens, c.k}), weights(DType::f32, {c.tokens, c.k});
        std::vector<double> values(static_cast<std::size_t>(c.tokens * c.num_experts), filler);
        values[static_cast<std::size_t>(c.num_experts / 2)] = other;
        logits.set(values);
        expect_same_on_gpu(
            {&logits},
            {{"scores", &scores, 3e-6, 1e-30}, {"indices", &indices, 0, 0}, {"weights", &weights, 6e-6, 1e-28}},
            [&](const ops::Context& context, auto&& at) {
              ops::router_forward(context, {.logits = at(logits),
                                            .method = c.method,
                                            .num_groups = c.num_groups,
                                            .topk_group = c.topk_group,
                                            .scaling_factor = c.scaling_factor,
                                            .normalize = c.normalize,
                                            .scores = at(scores),
                                            .indices = at(indices),
                                            .weights = at(weights)});
            });
      }
}

TEST(CudaLoadBalance, EqualsTheCpu) {
  std::vector<cases::LoadBalanceCase> cases = cases::load_balance_cases();
  cases.push_back({"Tokens", 8192, 64, 6, 2});
  for (const bool accumulates : {false, true})
    for (const cases::LoadBalanceCase& c : cases) {
      if (accumulates && c.scopes != 1) continue;
      SCOPED_TRACE(c.name);
      Twin scores(DType::f32, {c.tokens, c.num_experts}, 2), indices(DType::i32, {c.tokens, c.k}, 1);
      Twin accumulated(DType::i64, {c.num_experts + 1}), loss(DType::f64, {1});
      Twin dscores(DType::f32, {c.scopes, c.num_experts}, 3);
      scores.fill_normal(1, 0.1, 0.5);
      indices.fill_below(2, c.num_experts);
      accumulated.fill_below(3, 1000);
      loss.fill(0.25);
      std::vector<Output> outputs{{"loss", &loss, 1e-12, 1e-12}, {"dscores", &dscores, 1e-6, 1e-30}};
      if (accumulates) outputs.push_back({"accumulated", &accumulated, 0, 0});
      expect_same_on_gpu({&scores, &indices}, outputs, [&](const ops::Context& context, auto&& at) {
        ops::load_balance(context, {.scores = at(scores),
                                    .indices = at(indices),
                                    .accumulated = accumulates ? at(accumulated) : TensorView{},
                                    .coef_over_tokens = 0.01,
                                    .loss = at(loss),
                                    .dscores = at(dscores)});
      });
    }
}

std::vector<cases::PermuteCase> permute_cases() {
  std::vector<cases::PermuteCase> cases = cases::permute_cases();
  cases.push_back({"Tokens", 4096, 64, 6, 128});
  cases.push_back({"Hidden", 130, 64, 6, 2048});
  cases.push_back({"ManyExperts", 300, 1500, 8, 8});
  return cases;
}

TEST(CudaPermute, PlanForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t padding : {3, 8})
      for (const cases::PermuteCase& c : permute_cases()) {
        SCOPED_TRACE(std::string(name_of(dtype)) + " " + c.name);
        const std::int64_t rows = c.tokens * c.k;
        Twin indices(DType::i32, {c.tokens, c.k}, 1), row_map(DType::i32, {c.tokens, c.k}, 2);
        Twin offsets(DType::i32, {c.num_experts + 1});
        indices.fill_below(1, std::max<std::int64_t>(1, c.num_experts - 1));
        expect_same_on_gpu({&indices}, {{"offsets", &offsets, 0, 0}, {"row_map", &row_map, 0, 0}},
                           [&](const ops::Context& context, auto&& at) {
                             ops::permute_plan(
                                 context, {.indices = at(indices), .offsets = at(offsets), .row_map = at(row_map)});
                           });
        row_map.set(row_map.wide.values());

        const double e = storage(dtype);
        Twin x(dtype, {c.tokens, c.width}, padding), sorted(dtype, {rows, c.width}, padding);
        x.fill_normal(2);
        expect_same_on_gpu({&x, &row_map}, {{"sorted", &sorted, 0, 0}}, [&](const ops::Context& context, auto&& at) {
          ops::permute_forward(context, {.x = at(x), .row_map = at(row_map), .out = at(sorted)});
        });
        sorted.fill_normal(3);
        for (const bool accumulate : {false, true}) {
          Twin dx(dtype, {c.tokens, c.width}, padding);
          if (accumulate) dx.fill_normal(4);
          expect_same_on_gpu({&sorted, &row_map}, {{"dx", &dx, e, 4e-6}}, [&](const ops::Context& context, auto&& at) {
            ops::permute_backward(context,
                                  {.dout = at(sorted), .row_map = at(row_map), .dx = at(dx), .accumulate = accumulate});
          });
        }

        Twin weights(DType::f32, {c.tokens, c.k}, 1), dweights(DType::f32, {c.tokens, c.k}, 1);
        Twin residual(dtype, {c.tokens, c.width}, padding), shared(dtype, {c.tokens, c.width}, padding);
        Twin dsorted(dtype, {rows, c.width}, padding);
        weights.fill_normal(5);
        residual.fill_normal(6);
        shared.fill_normal(7);
        for (const bool with_residual : {false, true})
          for (const bool with_shared : {false, true}) {
            Twin out(dtype, {c.tokens, c.width}, padding);
            expect_same_on_gpu({&sorted, &weights, &row_map, &residual, &shared}, {{"out", &out, e, 1e-5}},
                               [&](const ops::Context& context, auto&& at) {
                                 ops::unpermute_forward(context,
                                                        {.x = at(sorted),
                                                         .weights = at(weights),
                                                         .row_map = at(row_map),
                                                         .residual = with_residual ? at(residual) : TensorView{},
                                                         .shared = with_shared ? at(shared) : TensorView{},
                                                         .out = at(out)});
                               });
          }
        const double dot = 1e-6 * (8 + static_cast<double>(c.width));
        const auto backward = [&](const Twin& to) {
          return [&](const ops::Context& context, auto&& at) {
            ops::unpermute_backward(context, {.dout = at(x),
                                              .x = at(sorted),
                                              .weights = at(weights),
                                              .row_map = at(row_map),
                                              .dx = at(to),
                                              .dweights = at(dweights)});
          };
        };
        expect_same_on_gpu({&x, &sorted, &weights, &row_map},
                           {{"dx", &dsorted, e, 1e-6}, {"dweights", &dweights, 1e-6, dot}}, backward(dsorted));
        expect_same_on_gpu({&x, &weights, &row_map},
                           {{"in place", &sorted, e, 1e-6}, {"dweights", &dweights, 1e-6, dot}}, backward(sorted));
      }
}

}  // namespace
}  // namespace lathe::testing
