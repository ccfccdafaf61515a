#include "ops/cpu/gemm.h"

#include "ops/op_testing.h"

namespace lathe::testing {
namespace {

struct Shape {
  std::int64_t m, n, k;
};

struct ProductRun {
  ProductRun(Shape s, bool transpose_a, bool transpose_b, DType dtype, std::int64_t padding)
      : shape(s),
        ta(transpose_a),
        tb(transpose_b),
        a(dtype, ta ? std::vector{s.k, s.m} : std::vector{s.m, s.k}, padding),
        b(dtype, tb ? std::vector{s.n, s.k} : std::vector{s.k, s.n}, padding),
        c(dtype, {s.m, s.n}, padding) {
    a.fill_normal(1);
    b.fill_normal(2);
  }
  template <typename T>
  ops::cpu::Gemm<T> product(T alpha, T beta) const {
    const auto ld = [](const TestTensor& tensor) { return std::max<std::int64_t>(tensor.view().strides[0], 1); };
    return {.m = shape.m,
            .n = shape.n,
            .k = shape.k,
            .a = a.view().as<T>(),
            .lda = ld(a),
            .transpose_a = ta,
            .b = b.view().as<T>(),
            .ldb = ld(b),
            .transpose_b = tb,
            .c = c.view().as<T>(),
            .ldc = ld(c),
            .alpha = alpha,
            .beta = beta};
  }
  std::vector<double> expected(double alpha, double beta) const {
    const std::vector<double> x = a.values();
    const std::vector<double> y = b.values();
    const std::vector<double> before = c.values();
    std::vector<double> result;
    for (std::int64_t i = 0; i < shape.m; ++i)
      for (std::int64_t j = 0; j < shape.n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < shape.k; ++l)
          sum += x[static_cast<std::size_t>(ta ? l * shape.m + i : i * shape.k + l)] *
                 y[static_cast<std::size_t>(tb ? j * shape.k + l : l * shape.n + j)];
        result.push_back(alpha * sum + (beta == 0 ? 0.0 : beta * before[result.size()]));
      }
    return result;
  }

  Shape shape;
  bool ta, tb;
  TestTensor a, b, c;
};

constexpr Shape kShapes[] = {{0, 3, 2},   {3, 0, 2},    {3, 2, 0},     {1, 1, 1},
                             {1, 70, 65}, {7, 13, 300}, {90, 100, 70}, {300, 70, 40}};

template <typename T>
void check_all(double bound) {
  for (const Shape& shape : kShapes)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true})
        for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {-0.5, 2.0}}) {
          ProductRun run(shape, ta, tb, dtype_of<T>, 3);
          if (beta != 0) run.c.fill_normal(3);  // else NaN, which must not be read
          const std::vector<double> expected = run.expected(alpha, beta);
          ops::cpu::gemm(run.product(static_cast<T>(alpha), static_cast<T>(beta)));
          EXPECT_TRUE(is_close(run.c, expected, bound, bound * (1 + std::sqrt(static_cast<double>(shape.k)))))
              << shape.m << " x " << shape.n << " x " << shape.k << ", transposed " << ta << tb << ", beta " << beta;
        }
}

TEST(Gemm, SinglePrecisionEqualsTheFormula) { check_all<float>(1e-6); }
TEST(Gemm, DoublePrecisionEqualsTheFormula) { check_all<double>(1e-14); }

TEST(Gemm, SameBitsOnAnyThreads) {
  // Deep and narrow, as the weight gradients: where a library would share out the depth.
  for (const Shape shape : {Shape{128, 128, 2048}, {8, 128, 2048}, {260, 130, 64}, {16, 600, 300}})
    for (const bool ta : {false, true})
      expect_same_bits_on_any_threads([&] {
        ProductRun run(shape, ta, false, DType::f32, 0);
        ops::cpu::gemm(run.product<float>(1, 0));
        return std::vector{run.c};
      });
}

TEST(Gemm, SameBitsInsideAParallelRegion) {
  ProductRun outside({300, 130, 200}, true, false, DType::f32, 0);
  ProductRun inside({300, 130, 200}, true, false, DType::f32, 0);
  ops::cpu::gemm(outside.product<float>(1, 0));
#pragma omp parallel num_threads(2)
  {
#pragma omp single
    ops::cpu::gemm(inside.product<float>(1, 0));
  }
  EXPECT_TRUE(outside.c.same_bits(inside.c));
}

TEST(Gemm, TilesCoverTheProductOnce) {
  for (const Shape shape : {Shape{1, 1, 1}, {2048, 258, 128}, {258, 128, 2048}, {1, 5000, 512}, {8, 128, 2048}})
    for (const bool ta : {false, true}) {
      std::vector<int> covered(static_cast<std::size_t>(shape.m * shape.n));
      std::vector<float> c(covered.size());
      const ops::cpu::Gemm<float> product{
          .m = shape.m, .n = shape.n, .k = shape.k, .transpose_a = ta, .c = c.data(), .ldc = shape.n};
      for (std::int64_t i = 0; i < gemm_num_tiles(product); ++i) {
        const auto tile = gemm_tile(product, i);
        for (std::int64_t row = 0; row < tile.m; ++row)
          for (std::int64_t column = 0; column < tile.n; ++column)
            ++covered[static_cast<std::size_t>(tile.c - c.data() + row * tile.ldc + column)];
      }
      EXPECT_EQ(std::count(covered.begin(), covered.end(), 1), std::ssize(covered)) << shape.m << " x " << shape.n;
    }
}

TEST(Gemm, HasAName) {
  const std::string_view name = ops::cpu::gemm_name();
  EXPECT_TRUE(name == "plain loop" || name.starts_with("oneDNN ")) << name;
}

}  // namespace
}  // namespace lathe::testing
