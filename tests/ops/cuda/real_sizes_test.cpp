// Grouped layers of DeepSeek-V2-Lite at 4,096 tokens: elements drawn from the results against sums in fp64.
#include <random>

#include "ops/cuda/twin_testing.h"
#include "ops/grouped_linear.h"

namespace lathe::testing {
namespace {

constexpr std::int64_t kGroups = 64;
constexpr int kSamples = 400;  // of each result

// A big bf16 matrix on both sides.
struct Matrix {
  Matrix(std::int64_t row_count, std::int64_t column_count, unsigned seed)
      : rows(row_count),
        columns(column_count),
        host(static_cast<std::size_t>(rows * columns)),
        memory(GpuContext::get().device(), host.size() * sizeof(bf16), "a test's matrix") {
    std::uint32_t state = seed;
    for (bf16& value : host) {
      state = state * 1664525u + 1013904223u;
      value = bf16(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f);
    }
    copy(device_view(), host_view());
  }
  TensorView host_view() { return TensorView::contiguous(host.data(), DType::bf16, {rows, columns}); }
  TensorView device_view() const {
    return TensorView::contiguous(memory.data(), DType::bf16, {rows, columns}, DeviceKind::cuda);
  }
  TensorView groups() const {
    return TensorView::contiguous(memory.data(), DType::bf16, {kGroups, rows / kGroups, columns}, DeviceKind::cuda);
  }
  std::vector<bf16> download() const {
    std::vector<bf16> result(host.size());
    copy(TensorView::contiguous(result.data(), DType::bf16, {rows, columns}), device_view());
    GpuContext::get().synchronize();
    return result;
  }
  double at(std::int64_t row, std::int64_t column) const { return value(host, row, column); }
  double value(const std::vector<bf16>& of, std::int64_t row, std::int64_t column) const {
    return static_cast<double>(static_cast<float>(of[static_cast<std::size_t>(row * columns + column)]));
  }
  static void copy(const TensorView& to, const TensorView& from) { GpuContext::get().device().copy(to, from, {}); }

  std::int64_t rows, columns;
  std::vector<bf16> host;
  Buffer memory;
};

void expect_near(double actual, double expected, double absolute, const char* name) {
  EXPECT_LE(std::abs(actual - expected), absolute + 0x1p-8 * std::abs(expected)) << name << " is " << actual;
}

void check_layer(std::int64_t in, std::int64_t out) {
  SCOPED_TRACE(fmt::format("{} to {}", in, out));
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
  const Matrix y(kRows, out, 4), dx(kRows, in, 5), dweight(kGroups * out, in, 6);
  const ops::Context& context = *GpuContext::get();
  std::vector<bf16> results[2][3];
  for (auto& result : results) {
    Matrix::copy(dweight.device_view(), TensorView::contiguous(const_cast<bf16*>(dweight.host.data()), DType::bf16,
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
    result[0] = y.download();
    result[1] = dx.download();
    result[2] = dweight.download();
  }
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(std::memcmp(results[0][i].data(), results[1][i].data(), results[0][i].size() * sizeof(bf16)), 0)
        << "result " << i << " differs in the second run";
  for (int sample = 0; sample < kSamples; ++sample) {
    const auto row = static_cast<std::int64_t>(random() % kRows);
    const std::int64_t group = std::upper_bound(offsets.begin(), offsets.end(), row) - offsets.begin() - 1;
    const auto i = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(in));
    const auto o = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(out));
    double expected = 0;
    for (std::int64_t k = 0; k < in; ++k) expected += x.at(row, k) * weight.at(group * out + o, k);
    expect_near(y.value(results[0][0], row, o), expected, 1e-3, "out");
    expected = 0;
    for (std::int64_t k = 0; k < out; ++k) expected += dout.at(row, k) * weight.at(group * out + k, i);
    expect_near(dx.value(results[0][1], row, i), expected, 1e-3, "dx");
    const auto any = static_cast<std::int64_t>(random() % kGroups);  // also one without rows
    expected = dweight.at(any * out + o, i);
    for (std::int64_t k = offsets[static_cast<std::size_t>(any)]; k < offsets[static_cast<std::size_t>(any) + 1]; ++k)
      expected += dout.at(k, o) * x.at(k, i);
    expect_near(dweight.value(results[0][2], any * out + o, i), expected, 1e-3, "dweight");
  }
}

TEST(CudaRealSizes, GateAndUp) { check_layer(2048, 2816); }
TEST(CudaRealSizes, Down) { check_layer(1408, 2048); }

}  // namespace
}  // namespace lathe::testing
