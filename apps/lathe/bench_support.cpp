#include "lathe/bench_support.h"

#include <algorithm>

#include "core/philox.h"

namespace lathe {
namespace {

template <typename T>
void fill_normal(const TensorView& tensor, const Philox& random) {
  T* const values = tensor.as<T>();
#pragma omp parallel for
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    values[i] = static_cast<T>(static_cast<float>(random.normal(static_cast<std::uint64_t>(i))));
}

}  // namespace

TensorView BenchMemory::empty(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name) {
  TensorView view = TensorView::contiguous(nullptr, dtype, shape, device_.kind());
  view.data = buffers_.emplace_back(device_, view.bytes(), name).data();
  return view;
}

TensorView BenchMemory::zeros(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name) {
  const TensorView view = empty(dtype, shape, name);
  device_.fill_zero(view, stream_);
  return view;
}

TensorView BenchMemory::normal(DType dtype, std::initializer_list<std::int64_t> shape, const std::string& name) {
  const TensorView view = empty(dtype, shape, name);
  std::vector<std::byte> host(view.bytes());
  const TensorView values = TensorView::contiguous(host.data(), dtype, shape);
  const Philox random(1234, buffers_.size());
  dtype == DType::bf16 ? fill_normal<bf16>(values, random) : fill_normal<float>(values, random);
  device_.copy(view, values, stream_);
  device_.synchronize(stream_);
  return view;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace lathe
