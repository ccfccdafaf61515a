// What the op tests share: tensors with padded rows, random and poisoned contents, comparison, finite differences, and
// runs on several numbers of threads.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "backends/register.h"
#include "core/philox.h"
#include "device/cpu_device.h"
#include "ops/context.h"

namespace lathe::testing {

// A CPU context with scratch memory of its own.
class CpuContext {
 public:
  CpuContext() : device_(make_cpu_device()), scratch_(*device_, "scratch") {
    context_.table = &op_table(DeviceKind::cpu);
    context_.device = device_.get();
    context_.scratch = &scratch_;
  }
  const ops::Context& operator*() const { return context_; }
  const ops::Context* operator->() const { return &context_; }
  Device& device() { return *device_; }

 private:
  std::unique_ptr<Device> device_;
  Arena scratch_;
  ops::Context context_;
};

// Calls body(offset in elements, running index) for the elements of a view in logical order.
template <typename Body>
void for_each_element(const TensorView& view, Body&& body) {
  const std::int64_t count = view.numel();
  std::array<std::int64_t, kMaxRank> at{};
  std::int64_t offset = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    body(offset, i);
    for (int dim = view.rank - 1; dim >= 0; --dim) {
      const auto d = static_cast<std::size_t>(dim);
      offset += view.strides[d];
      if (++at[d] < view.shape[d]) break;
      offset -= view.strides[d] * view.shape[d];
      at[d] = 0;
    }
  }
}

inline double load(const TensorView& view, std::int64_t offset) {
  switch (view.dtype) {
    case DType::f32:
      return static_cast<double>(view.as<float>()[offset]);
    case DType::f64:
      return view.as<double>()[offset];
    case DType::bf16:
      return static_cast<double>(static_cast<float>(view.as<bf16>()[offset]));
    case DType::i32:
      return static_cast<double>(view.as<std::int32_t>()[offset]);
    case DType::i64:
      return static_cast<double>(view.as<std::int64_t>()[offset]);
  }
  return 0;
}

inline void store(const TensorView& view, std::int64_t offset, double value) {
  switch (view.dtype) {
    case DType::f32:
      view.as<float>()[offset] = static_cast<float>(value);
      return;
    case DType::f64:
      view.as<double>()[offset] = value;
      return;
    case DType::bf16:
      view.as<bf16>()[offset] = bf16(static_cast<float>(value));
      return;
    case DType::i32:
      view.as<std::int32_t>()[offset] = static_cast<std::int32_t>(value);
      return;
    case DType::i64:
      view.as<std::int64_t>()[offset] = static_cast<std::int64_t>(value);
      return;
  }
}

// The elements of a view in logical order, as fp64.
inline std::vector<double> values_of(const TensorView& view) {
  std::vector<double> values(static_cast<std::size_t>(view.numel()));
  for_each_element(
      view, [&](std::int64_t offset, std::int64_t i) { values[static_cast<std::size_t>(i)] = load(view, offset); });
  return values;
}

// A tensor that owns its memory. Everything starts poisoned: floating-point with NaN, integers with a value far outside
// any range. `padding` elements follow every row of the last dimension and must stay poisoned.
class TestTensor {
 public:
  TestTensor() = default;
  TestTensor(DType dtype, std::vector<std::int64_t> shape, std::int64_t padding = 0) : padding_(padding) {
    std::vector<std::int64_t> padded = shape;
    if (!padded.empty()) padded.back() += padding;
    const TensorView whole = TensorView::contiguous(nullptr, dtype, padded);
    memory_.resize(whole.bytes() + size_of(dtype));
    whole_ = TensorView::contiguous(memory_.data(), dtype, padded);
    view_ = shape.empty() ? whole_ : whole_.slice(whole_.rank - 1, 0, shape.back());
    poison();
  }
  TestTensor(const TestTensor& other) : TestTensor(other.view_.dtype, other.shape(), other.padding_) {
    memory_ = other.memory_;
    attach();
  }
  TestTensor& operator=(TestTensor other) {
    std::swap(padding_, other.padding_);
    std::swap(memory_, other.memory_);
    std::swap(whole_, other.whole_);
    std::swap(view_, other.view_);
    return *this;
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  // With the padding, contiguous.
  const TensorView& whole() const { return whole_; }
  std::vector<double> values() const { return values_of(view_); }
  std::vector<std::int64_t> shape() const { return {view_.shape.begin(), view_.shape.begin() + view_.rank}; }

  void poison() {
    const bool integer = view_.dtype == DType::i32 || view_.dtype == DType::i64;
    const double value = integer ? double{kIntegerPoison} : std::numeric_limits<double>::quiet_NaN();
    for_each_element(whole_, [&](std::int64_t offset, std::int64_t) { store(whole_, offset, value); });
  }
  void fill(double value) {
    for_each_element(view_, [&](std::int64_t offset, std::int64_t) { store(view_, offset, value); });
  }
  // Nearly normal values (the sum of four uniform ones), a pure function of (seed, index): the same for every dtype and
  // padding, up to rounding to `dtype`.
  void fill_normal(std::uint64_t seed, double scale = 1.0, double mean = 0.0) {
    const Philox random(seed);
    for_each_element(view_, [&](std::int64_t offset, std::int64_t i) {
      // Rounded to fp32 first, so that fp64 and fp32 runs start from equal numbers.
      double sum = -2;
      for (const std::uint32_t word : random.block(static_cast<std::uint64_t>(i))) sum += word * 0x1p-32;
      const auto value = static_cast<float>(mean + scale * sum * std::sqrt(3.0));
      store(view_, offset, static_cast<double>(value));
    });
  }
  // Integers in [0, bound).
  void fill_below(std::uint64_t seed, std::int64_t bound) {
    const Philox random(seed);
    for_each_element(view_, [&](std::int64_t offset, std::int64_t i) {
      const auto value = random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound));
      store(view_, offset, static_cast<double>(value));
    });
  }
  void set(const std::vector<double>& values) {
    ASSERT_EQ(values.size(), static_cast<std::size_t>(view_.numel()));
    for_each_element(
        view_, [&](std::int64_t offset, std::int64_t i) { store(view_, offset, values[static_cast<std::size_t>(i)]); });
  }
  // True while nothing wrote between the rows.
  bool padding_is_intact() const {
    if (padding_ == 0) return true;
    const TensorView gap = whole_.slice(whole_.rank - 1, view_.shape[last()], padding_);
    bool intact = true;
    for_each_element(gap, [&](std::int64_t offset, std::int64_t) {
      const double value = load(gap, offset);
      intact = intact && (std::isnan(value) || value == double{kIntegerPoison});
    });
    return intact;
  }
  // Contents, padding included.
  bool same_bits(const TestTensor& other) const { return memory_ == other.memory_; }

 private:
  static constexpr int kIntegerPoison = -987654321;

  std::size_t last() const { return static_cast<std::size_t>(view_.rank - 1); }
  void attach() {
    whole_.data = memory_.data();
    view_.data = memory_.data();
  }

  std::int64_t padding_ = 0;
  std::vector<std::byte> memory_;
  TensorView whole_;
  TensorView view_;
};

// |actual - expected| <= absolute + relative * |expected| for every element; NaN and infinities must be in the same
// places. The message names the worst element.
inline ::testing::AssertionResult is_close(const std::vector<double>& actual, const std::vector<double>& expected,
                                           double relative, double absolute) {
  if (actual.size() != expected.size())
    return ::testing::AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  double worst = 0;
  std::size_t worst_index = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i];
    const double e = expected[i];
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    const double error = std::abs(a - e) / (absolute + relative * std::abs(e));
    if (error <= worst) continue;
    worst = std::isfinite(a) && std::isfinite(e) ? error : std::numeric_limits<double>::infinity();
    worst_index = i;
  }
  if (worst <= 1.0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << worst_index << " is " << actual[worst_index] << ", expected "
                                       << expected[worst_index] << ": " << worst << " times the error allowed";
}

// As is_close, for the values of a tensor; also fails if the tensor's padding was written.
inline ::testing::AssertionResult is_close(const TestTensor& actual, const std::vector<double>& expected,
                                           double relative, double absolute) {
  if (!actual.padding_is_intact()) return ::testing::AssertionFailure() << "the padding between rows was written";
  return is_close(actual.values(), expected, relative, absolute);
}

// d loss / d x by central differences, for every element of the fp64 tensor x. x is restored.
inline std::vector<double> finite_differences(const TensorView& x, const std::function<double()>& loss,
                                              double step = 1e-5) {
  std::vector<double> gradient(static_cast<std::size_t>(x.numel()));
  for_each_element(x, [&](std::int64_t offset, std::int64_t i) {
    double& element = x.as<double>()[offset];
    const double saved = element;
    element = saved + step;
    const double above = loss();
    element = saved - step;
    const double below = loss();
    element = saved;
    gradient[static_cast<std::size_t>(i)] = (above - below) / (2 * step);
  });
  return gradient;
}

// sum_i a_i * b_i in logical order: a scalar loss out of an output and a fixed weight for each of its elements.
inline double dot(const TensorView& a, const TensorView& b) {
  const std::vector<double> x = values_of(a);
  const std::vector<double> y = values_of(b);
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

// Runs body() on 1, 2, 3 and 4 threads and twice on each; `result` returns the tensors that must be bit-equal each
// time.
inline void expect_same_bits_on_any_threads(const std::function<std::vector<TestTensor>()>& result) {
  const int saved = omp_get_max_threads();
  std::vector<TestTensor> first;
  for (const int threads : {1, 2, 2, 3, 4, 1}) {
    omp_set_num_threads(threads);
    const std::vector<TestTensor> again = result();
    if (first.empty()) first = again;
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(first[i].same_bits(again[i])) << "result " << i << " differs on " << threads << " threads";
  }
  omp_set_num_threads(saved);
}

}  // namespace lathe::testing
