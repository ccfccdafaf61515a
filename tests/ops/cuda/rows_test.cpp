// Ops that work row by row.
#include "cases/embedding_cases.h"
#include "cases/rms_norm_cases.h"
#include "cases/rope_cases.h"
#include "cases/swiglu_cases.h"
#include "ops/cuda/twin_testing.h"
#include "ops/embedding.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/swiglu.h"

namespace lathe::testing {
namespace {

template <typename Case>
std::vector<Case> with(std::vector<Case> cases, const std::vector<Case>& more) {
  cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

TEST(CudaEmbedding, ForwardAndBackward) {
  for (const Types& types : all_types())
    for (const auto& c : with<cases::EmbeddingCase>(
             cases::embedding_cases(),
             {{"Vectors", 300, 40, 64, 8}, {"OneToken", 700, 1, 16, 0}, {"V2Lite", 4096, 102400, 64, 0}})) {
      SCOPED_TRACE(describe(types) + " " + c.name);
      Twin tokens(DType::i32, {c.tokens});
      Twin table(types.tensors, {c.vocab, c.hidden}, c.padding);
      Twin out(types.tensors, {c.tokens, c.hidden}, c.padding);
      Twin dout(types.tensors, {c.tokens, c.hidden}, c.padding);
      Twin dtable(types.gradients, {c.vocab, c.hidden}, c.padding);
      tokens.fill_below(1, c.vocab);
      table.fill_normal(2);
      dout.fill_normal(3);
      dtable.fill_normal(4);
      expect_same_on_gpu({&tokens, &table}, {{"out", &out, 0, 0}}, [&](const ops::Context& context, auto&& at) {
        ops::embedding_forward(context, {.tokens = at(tokens), .table = at(table), .out = at(out)});
      });
      const double rows = static_cast<double>(c.tokens) / static_cast<double>(c.vocab);
      expect_same_on_gpu(
          {&tokens, &dout}, {{"dtable", &dtable, storage(types.gradients), 1e-6 * (1 + rows)}},
          [&](const ops::Context& context, auto&& at) {
            ops::embedding_backward(
                context,
                {.tokens = at(tokens), .dout = at(dout), .dtable = at(dtable), .padding_idx = c.vocab > 2 ? 2 : -1});
          });
    }
}

TEST(CudaRmsNorm, ForwardAndBackward) {
  for (const Types& types : all_types())
    for (const auto& c : with<cases::RmsNormCase>(cases::rms_norm_cases(),
                                                  {{"Vectors", 600, 64, 16, false}, {"Latent", 300, 512, 64, true}})) {
      SCOPED_TRACE(describe(types) + " " + c.name);
      const DType dtype = types.tensors;
      const double e = storage(dtype);
      Twin x(dtype, {c.rows, c.width}, c.padding), residual(dtype, {c.rows, c.width}, c.padding);
      Twin weight(dtype, {c.width}), out(dtype, {c.rows, c.width}, c.padding), sum(dtype, {c.rows, c.width}, c.padding);
      Twin rstd(DType::f32, {c.rows}), given_rstd(DType::f32, {c.rows});
      Twin dout(dtype, {c.rows, c.width}, c.padding), dsum(dtype, {c.rows, c.width}, c.padding);
      Twin dx(dtype, {c.rows, c.width}, c.padding), dweight(types.gradients, {c.width});
      x.fill_normal(1);
      residual.fill_normal(2);
      weight.fill_normal(3, 0.3, 1);
      given_rstd.fill_normal(4, 0.1, 1);
      dout.fill_normal(5);
      dsum.fill_normal(6);
      std::vector<const Twin*> inputs{&x, &weight};
      std::vector<Output> outputs{{"out", &out, 4 * e, 8 * e}, {"rstd", &rstd, 4 * e, 1e-6}};
      if (c.residual) {
        inputs.push_back(&residual);
        outputs.push_back({"sum", &sum, e, 1e-6});
      }
      expect_same_on_gpu(inputs, outputs, [&](const ops::Context& context, auto&& at) {
        ops::rms_norm_forward(context, {.x = at(x),
                                        .residual = c.residual ? at(residual) : TensorView{},
                                        .weight = at(weight),
                                        .eps = 1e-6,
                                        .out = at(out),
                                        .sum = c.residual ? at(sum) : TensorView{},
                                        .rstd = at(rstd)});
      });
      if (c.residual) {  // in place: the sum over x
        expect_same_on_gpu({&weight, &residual}, {{"out", &out, 4 * e, 8 * e}, {"sum", &x, e, 1e-6}},
                           [&](const ops::Context& context, auto&& at) {
                             ops::rms_norm_forward(context, {.x = at(x),
                                                             .residual = at(residual),
                                                             .weight = at(weight),
                                                             .eps = 1e-6,
                                                             .out = at(out),
                                                             .sum = at(x),
                                                             .rstd = {}});
                           });
        x.fill_normal(1);
      }
      const double rounding = 2e-6 * (8 + static_cast<double>(c.rows));
      const auto expect_same_backward = [&](std::vector<const Twin*> given, bool residual_too, Twin& into) {
        given.insert(given.end(), {&x, &weight, &given_rstd});
        dweight.fill_normal(7);
        expect_same_on_gpu(given, {{"dx", &into, e, 2e-5}, {"dweight", &dweight, storage(types.gradients), rounding}},
                           [&](const ops::Context& context, auto&& at) {
                             ops::rms_norm_backward(context, {.dout = at(dout),
                                                              .x = at(x),
                                                              .weight = at(weight),
                                                              .rstd = at(given_rstd),
                                                              .dsum = residual_too ? at(dsum) : TensorView{},
                                                              .dx = at(into),
                                                              .dweight = at(dweight)});
                           });
      };
      expect_same_backward({&dout, &dsum}, true, dx);
      expect_same_backward({&dout}, true, dsum);  // in place
      expect_same_backward({}, false, dout);
    }
}

TEST(CudaSwiglu, ForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& c : with<cases::SwigluCase>(cases::swiglu_cases(), {{"Experts", 500, 1408, 16}})) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " " + c.name);
      const double e = 2 * storage(dtype);
      Twin gate_up(dtype, {c.rows, 2 * c.width}, c.padding), dout(dtype, {c.rows, c.width}, c.padding);
      Twin out(dtype, {c.rows, c.width}, c.padding), dgate_up(dtype, {c.rows, 2 * c.width}, c.padding);
      gate_up.fill_normal(1, 3);
      dout.fill_normal(2);
      expect_same_on_gpu({&gate_up}, {{"out", &out, e, 1e-5}}, [&](const ops::Context& context, auto&& at) {
        ops::swiglu_forward(context, {.gate_up = at(gate_up), .out = at(out)});
      });
      expect_same_on_gpu(
          {&gate_up, &dout}, {{"dgate_up", &dgate_up, e, 2e-5}}, [&](const ops::Context& context, auto&& at) {
            ops::swiglu_backward(context, {.dout = at(dout), .gate_up = at(gate_up), .dgate_up = at(dgate_up)});
          });
      expect_same_on_gpu({&dout}, {{"in place", &gate_up, e, 2e-5}}, [&](const ops::Context& context, auto&& at) {
        ops::swiglu_backward(context, {.dout = at(dout), .gate_up = at(gate_up), .dgate_up = at(gate_up)});
      });
    }
}

TEST(CudaRope, TurnsAndTurnsBack) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool transpose : {false, true})
      for (const std::int64_t padding : {3, 8})
        for (const auto& c : cases::rope_cases()) {
          SCOPED_TRACE(std::string(name_of(dtype)) + " " + c.name);
          Twin x(dtype, {c.tokens, c.heads, c.d}, padding), out(dtype, {c.tokens, c.heads, c.d}, padding);
          Twin positions(DType::i32, {c.tokens});
          // The tables are fp32 for every type.
          Twin cos(DType::f32, DType::f32, {c.positions, c.d / 2}, 1),
              sin(DType::f32, DType::f32, {c.positions, c.d / 2}, 1);
          x.fill_normal(1);
          positions.fill_below(2, c.positions);
          cos.fill_normal(3);
          sin.fill_normal(4);
          const auto turn = [&](const Twin& to) {
            return [&](const ops::Context& context, auto&& at) {
              ops::rope(context, {.x = at(x),
                                  .out = at(to),
                                  .positions = at(positions),
                                  .cos = at(cos),
                                  .sin = at(sin),
                                  .transpose = transpose});
            };
          };
          expect_same_on_gpu({&x, &positions, &cos, &sin}, {{"out", &out, storage(dtype), 2e-6}}, turn(out));
          expect_same_on_gpu({&positions, &cos, &sin}, {{"in place", &x, storage(dtype), 2e-6}}, turn(x));
        }
}

}  // namespace
}  // namespace lathe::testing
