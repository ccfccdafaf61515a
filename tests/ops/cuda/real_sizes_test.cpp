// Grouped layers of DeepSeek-V2-Lite at 4,096 tokens: elements drawn from the results against sums in fp64.
#include <random>
#include <type_traits>

#include "ops/cuda/twin_testing.h"
#include "ops/grouped_linear.h"

namespace lathe::testing {
namespace {

constexpr std::int64_t kGroups = 64;
constexpr int kSamples = 400;  // of each result

// A big matrix on both sides.
template <typename T>
struct MatrixOf {
  MatrixOf(std::int64_t row_count, std::int64_t column_count, unsigned seed)
      : rows(row_count),
        columns(column_count),
        host(static_cast<std::size_t>(rows * columns)),
        memory(GpuContext::get().device(), host.size() * sizeof(T), "a test's matrix") {
    std::uint32_t state = seed;
    for (T& value : host) {
      state = state * 1664525u + 1013904223u;
      value = T(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f);
    }
    copy(device_view(), host_view());
  }
  TensorView host_view() { return TensorView::contiguous(host.data(), dtype_of<T>, {rows, columns}); }
  TensorView device_view() const {
    return TensorView::contiguous(memory.data(), dtype_of<T>, {rows, columns}, DeviceKind::cuda);
  }
  TensorView groups() const {
    return TensorView::contiguous(memory.data(), dtype_of<T>, {kGroups, rows / kGroups, columns}, DeviceKind::cuda);
  }
  std::vector<T> download() const {
    std::vector<T> result(host.size());
    copy(TensorView::contiguous(result.data(), dtype_of<T>, {rows, columns}), device_view());
    GpuContext::get().synchronize();
    return result;
  }
  double at(std::int64_t row, std::int64_t column) const { return value(host, row, column); }
  double value(const std::vector<T>& of, std::int64_t row, std::int64_t column) const {
    return static_cast<double>(static_cast<float>(of[static_cast<std::size_t>(row * columns + column)]));
  }
  static void copy(const TensorView& to, const TensorView& from) { GpuContext::get().device().copy(to, from, {}); }

  std::int64_t rows, columns;
  std::vector<T> host;
  Buffer memory;
};
using Matrix = MatrixOf<bf16>;

void expect_near(double actual, double expected, double relative, const char* name) {
  EXPECT_LE(std::abs(actual - expected), 1e-3 + relative * std::abs(expected)) << name << " is " << actual;
}

// The weight's gradient is added to in G.
template <typename G>
void check_layer(std::int64_t in, std::int64_t out) {
  SCOPED_TRACE(fmt::format("{} to {}, gradient in {}", in, out, name_of(dtype_of<G>)));
  constexpr std::int64_t kRows = 4096 * 6;
  std::mt19937 random(5);
  // Uneven groups, some without rows.
  std::vector<std::int32_t> offsets{0};
  std::vector<int> shares;
  int total = 0;
  for (std::int64_t group = 0; group < kGroups; ++group) {
    shares.push_back(group % 9 == 4 ? 0 : static_cast<int>(random() % 1000));
    total += shares.back();
  }
  int sum = 0;
  for (const int share : shares) offsets.push_back(static_cast<std::int32_t>(kRows * (sum += share) / total));
  TestTensor offsets_tensor(DType::i32, {kGroups + 1});
  offsets_tensor.set({offsets.begin(), offsets.end()});
  const Mirror offsets_mirror(offsets_tensor);
  const TensorView offsets_view = offsets_mirror.part(offsets_tensor.view(), offsets_tensor);

  const Matrix x(kRows, in, 1), weight(kGroups * out, in, 2), dout(kRows, out, 3);
  const Matrix y(kRows, out, 4), dx(kRows, in, 5);
  const MatrixOf<G> dweight(kGroups * out, in, 6);
  const ops::Context& context = *GpuContext::get();
  struct Results {
    std::vector<bf16> y, dx;
    std::vector<G> dweight;
  } results[2];
  for (Results& result : results) {
    Matrix::copy(dweight.device_view(), TensorView::contiguous(const_cast<G*>(dweight.host.data()), dtype_of<G>,
                                                               {dweight.rows, dweight.columns}));
    GpuContext::get().poison_scratch();
    ops::grouped_linear_forward(
        context, {.x = x.device_view(), .weight = weight.groups(), .offsets = offsets_view, .out = y.device_view()});
    ops::grouped_linear_backward(context, {.dout = dout.device_view(),
                                           .x = x.device_view(),
                                           .weight = weight.groups(),
                                           .offsets = offsets_view,
                                           .dx = dx.device_view(),
                                           .dweight = dweight.groups()});
    result = {y.download(), dx.download(), dweight.download()};
  }
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
  };
  EXPECT_TRUE(same(results[0].y, results[1].y) && same(results[0].dx, results[1].dx) &&
              same(results[0].dweight, results[1].dweight))
      << "the second run differs";
  for (int sample = 0; sample < kSamples; ++sample) {
    const auto row = static_cast<std::int64_t>(random() % kRows);
    const std::int64_t group = std::upper_bound(offsets.begin(), offsets.end(), row) - offsets.begin() - 1;
    const auto i = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(in));
    const auto o = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(out));
    double expected = 0;
    for (std::int64_t k = 0; k < in; ++k) expected += x.at(row, k) * weight.at(group * out + o, k);
    expect_near(y.value(results[0].y, row, o), expected, 0x1p-8, "out");
    expected = 0;
    for (std::int64_t k = 0; k < out; ++k) expected += dout.at(row, k) * weight.at(group * out + k, i);
    expect_near(dx.value(results[0].dx, row, i), expected, 0x1p-8, "dx");
    const auto any = static_cast<std::int64_t>(random() % kGroups);  // also one without rows
    expected = dweight.at(any * out + o, i);
    for (std::int64_t k = offsets[static_cast<std::size_t>(any)]; k < offsets[static_cast<std::size_t>(any) + 1]; ++k)
      expected += dout.at(k, o) * x.at(k, i);
    expect_near(dweight.value(results[0].dweight, any * out + o, i), expected, std::is_same_v<G, float> ? 1e-5 : 0x1p-8,
                "dweight");
  }
}

TEST(CudaRealSizes, GateAndUp) { check_layer<float>(2048, 2816); }
TEST(CudaRealSizes, GateAndUpInBf16) { check_layer<bf16>(2048, 2816); }
TEST(CudaRealSizes, Down) { check_layer<float>(1408, 2048); }

}  // namespace
}  // namespace lathe::testing
