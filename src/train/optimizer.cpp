#include "train/optimizer.h"

#include <cmath>

#include "checkpoint/safetensors.h"
#include "ops/adamw.h"
#include "ops/global_norm.h"
#include "train/host_copy.h"

namespace lathe {
namespace {

constexpr const char* kFileName = "optimizer-00001.safetensors";

}  // namespace

Optimizer::Optimizer(const RunConfig::Optimizer& settings, const ParameterLayout& layout, const ops::Context& ops,
                     DType dtype)
    : settings_(settings), layout_(layout), ops_(ops) {
  const std::size_t bytes = static_cast<std::size_t>(layout.size()) * size_of(dtype);
  m_memory_ = Buffer(*ops.device, bytes, "first moments");
  v_memory_ = Buffer(*ops.device, bytes, "second moments");
  m_ = TensorView::contiguous(m_memory_.data(), dtype, {layout.size()}, ops.device->kind());
  v_ = TensorView::contiguous(v_memory_.data(), dtype, {layout.size()}, ops.device->kind());
  ops.device->fill_zero(m_, ops.stream);
  ops.device->fill_zero(v_, ops.stream);
}

double Optimizer::gradient_norm(const TensorView& gradients) const {
  const ArenaScope scope(*ops_.scratch);
  const TensorView sum = ops_.scratch->take(DType::f64, {1});
  ops_.device->fill_zero(sum, ops_.stream);
  ops::sum_of_squares(ops_, {.x = gradients, .out = sum});
  return std::sqrt(read_scalar(*ops_.device, ops_.stream, sum));
}

std::string Optimizer::first_non_finite(const TensorView& gradients) const {
  for (const NamedTensor& gradient : layout_.named(gradients))
    if (!std::isfinite(gradient_norm(gradient.view.reshape({gradient.view.numel()})))) return gradient.name;
  return "";
}

void Optimizer::step(const TensorView& weights, const TensorView& gradients, double grad_scale, double lr) {
  ++updates_;
  for (const ParameterLayout::Block& block : layout_.blocks()) {
    std::int64_t count = 1;
    for (const std::int64_t length : block.shape) count *= length;
    const auto part = [&](const TensorView& flat) { return flat.slice(0, block.offset, count); };
    ops::adamw(ops_, {.parameter = part(weights),
                      .gradient = part(gradients),
                      .m = part(m_),
                      .v = part(v_),
                      .grad_scale = grad_scale,
                      .lr = lr,
                      .beta1 = settings_.beta1,
                      .beta2 = settings_.beta2,
                      .eps = settings_.eps,
                      .weight_decay = block.one_dimensional ? 0.0 : settings_.weight_decay,
                      .step = updates_});
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, view] : layout_.named(m_)) tensors.push_back({"m." + name, view});
  for (const auto& [name, view] : layout_.named(v_)) tensors.push_back({"v." + name, view});
  return tensors;
}

void Optimizer::save(const std::filesystem::path& folder) const {
  std::vector<TensorSpec> specs;
  const std::vector<NamedTensor> tensors = state();
  for (const auto& [name, view] : tensors)
    specs.push_back({name, view.dtype, {view.shape.begin(), view.shape.begin() + view.rank}});
  SafetensorsWriter writer(folder / kFileName, std::move(specs));
  for (const NamedTensor& tensor : tensors) writer.write(HostCopy(*ops_.device, ops_.stream, tensor.view).view());
  writer.finish();
}

void Optimizer::load(const std::filesystem::path& folder, std::int64_t updates) {
  check(ops_.device->kind() == DeviceKind::cpu, "moments are read into host memory");
  const SafetensorsFile file(folder / kFileName);
  for (const auto& [name, view] : state()) file.read_into(name, view);
  updates_ = updates;
}

}  // namespace lathe
