#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "ops/adamw.h"
#include "ops/global_norm.h"
#include "train/host_copy.h"

namespace lathe {
namespace {

constexpr const char* kFileName = "optimizer-00001.safetensors";
constexpr const char* kMaster = "master.";

void append(std::vector<NamedTensor>& tensors, const std::string& prefix, const std::vector<NamedTensor>& more) {
  for (const auto& [name, view] : more) tensors.push_back({prefix + name, view});
}

}  // namespace

Optimizer::Optimizer(const RunConfig::Optimizer& settings, const ParameterLayout& layout, const ops::Context& ops)
    : settings_(settings),
      layout_(layout),
      ops_(ops),
      memory_(*ops.device, 2 * static_cast<std::size_t>(layout.size()) * sizeof(float), "moments") {
  const TensorView both = TensorView::contiguous(memory_.data(), DType::f32, {2 * layout.size()}, ops.device->kind());
  m_ = both.slice(0, 0, layout.size());
  v_ = both.slice(0, layout.size(), layout.size());
  ops.device->fill_zero(both, ops.stream);
}

void Optimizer::sum_of_squares(const TensorView& gradients, const TensorView& out) const {
  ops::sum_of_squares(ops_, {.x = gradients, .out = out});
}

std::string Optimizer::first_non_finite(const TensorView& gradients) const {
  const ArenaScope scope(*ops_.scratch);
  const TensorView sum = ops_.scratch->take(DType::f64, {1});
  for (const NamedTensor& gradient : layout_.named(gradients)) {
    ops_.device->fill_zero(sum, ops_.stream);
    sum_of_squares(gradient.view.reshape({gradient.view.numel()}), sum);
    if (!std::isfinite(read_scalar(*ops_.device, ops_.stream, sum))) return gradient.name;
  }
  return "";
}

void Optimizer::step(const TensorView& masters, const TensorView& weights, const TensorView& gradients,
                     double grad_scale, double lr) {
  ++updates_;
  const bool rounded = weights.data != masters.data;
  for (const ParameterLayout::Block& block : layout_.blocks()) {
    std::int64_t count = 1;
    for (const std::int64_t length : block.shape) count *= length;
    const auto part = [&](const TensorView& flat) { return flat.slice(0, block.offset, count); };
    ops::adamw(ops_, {.parameter = part(masters),
                      .gradient = part(gradients),
                      .m = part(m_),
                      .v = part(v_),
                      .rounded = rounded ? part(weights) : TensorView{},
                      .grad_scale = grad_scale,
                      .lr = lr,
                      .beta1 = settings_.beta1,
                      .beta2 = settings_.beta2,
                      .eps = settings_.eps,
                      .weight_decay = block.one_dimensional ? 0.0 : settings_.weight_decay,
                      .step = updates_});
  }
}

std::vector<NamedTensor> Optimizer::moments() const {
  std::vector<NamedTensor> tensors;
  append(tensors, "m.", layout_.named(m_));
  append(tensors, "v.", layout_.named(v_));
  return tensors;
}

void Optimizer::save(const std::filesystem::path& folder, const TensorView& masters) const {
  std::vector<NamedTensor> tensors = moments();
  if (masters) append(tensors, kMaster, layout_.named(masters));
  std::vector<TensorSpec> specs;
  for (const auto& [name, view] : tensors)
    specs.push_back({name, view.dtype, {view.shape.begin(), view.shape.begin() + view.rank}});
  SafetensorsWriter writer(folder / kFileName, std::move(specs));
  for (const NamedTensor& tensor : tensors) writer.write(HostCopy(*ops_.device, ops_.stream, tensor.view).view());
  writer.finish();
}

void Optimizer::load(const std::filesystem::path& folder, std::int64_t updates) {
  const SafetensorsFile file(folder / kFileName);
  fill_from_host(*ops_.device, ops_.stream, moments(),
                 [&](const std::string& name, const TensorView& host) { file.read_into(name, host); });
  updates_ = updates;
}

SavedMasters::SavedMasters(const std::filesystem::path& folder)
    : file_(folder / kFileName), any_(std::ranges::any_of(file_.tensors(), [](const StoredTensor& tensor) {
        return tensor.name.starts_with(kMaster);
      })) {}

void SavedMasters::read_into(const std::string& name, const TensorView& host) const {
  file_.read_into(kMaster + name, host);
}

}  // namespace lathe
