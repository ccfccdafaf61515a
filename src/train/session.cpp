#include "train/session.h"

#include <algorithm>
#include <numeric>

namespace lathe {
namespace {

TensorView allocate_flat(Device& device, const ParameterLayout& layout, DType dtype, const std::string& name,
                         Buffer& memory) {
  memory = Buffer(device, static_cast<std::size_t>(layout.size()) * size_of(dtype), name);
  return TensorView::contiguous(memory.data(), dtype, {layout.size()}, device.kind());
}

}  // namespace

Session::Session(const Runtime& runtime, const ModelConfig& config, const Options& options)
    : config_(config),
      layout_(config_),
      scratch_(*runtime.device, "scratch"),
      activations_(*runtime.device, "activations"),
      ops_{.table = runtime.table, .device = runtime.device.get(), .stream = {}, .scratch = &scratch_} {
  Device& device = *runtime.device;
  weights_ = allocate_flat(device, layout_, runtime.dtype, "weights", weights_memory_);
  const bool rounded = weights_.dtype == DType::bf16;
  if (!rounded) masters_ = weights_;
  if (rounded && options.masters) masters_ = allocate_flat(device, layout_, DType::f32, "masters", masters_memory_);
  if (options.gradients) {
    gradients_ = allocate_flat(device, layout_, DType::f32, "gradients", gradients_memory_);
    device.fill_zero(gradients_, ops_.stream);
  }
  model_ = std::make_unique<Model>(config_, layout_, ops_, activations_, weights_, gradients_, options.max_positions);
}

void Session::fill_weights(const ReadTensor& read) {
  Device& device = *ops_.device;
  const TensorView& source = masters_ ? masters_ : weights_;
  device.fill_zero(source, ops_.stream);  // the padding between blocks
  fill_from_host(device, ops_.stream, layout_.named(source), read);
  if (weights_.data != source.data) device.copy(weights_, source, ops_.stream);
}

std::string Session::describe_memory() {
  activations_.compact();
  scratch_.compact();
  return ops_.device->memory().describe();
}

MicroBatchBuffer::MicroBatchBuffer(Session& session, std::int64_t rows)
    : session_(session),
      rows_(rows),
      memory_(session.device(), static_cast<std::size_t>(4 * rows + 1) * sizeof(std::int32_t), "tokens"),
      host_(static_cast<std::size_t>(4 * rows + 1)) {}

// In memory: tokens, targets, positions, and where there are some cu_seqlens.
MicroBatch MicroBatchBuffer::upload(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                    std::int64_t batch, std::int64_t first_position,
                                    std::span<const std::int32_t> cu_seqlens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  check(batch > 0 && count % batch == 0 && count <= rows_, "{} tokens do not make {} sequences of {} rows in all",
        count, batch, rows_);
  const std::int64_t length = count / batch;
  std::ranges::copy(tokens, host_.begin());
  std::ranges::copy(targets, host_.begin() + count);
  const auto positions = host_.begin() + 2 * count;
  for (std::int64_t sequence = 0; sequence < batch; ++sequence)
    std::iota(positions + sequence * length, positions + (sequence + 1) * length,
              static_cast<std::int32_t>(first_position));
  std::ranges::copy(cu_seqlens, positions + count);

  Device& device = session_.device();
  const std::int64_t total = 3 * count + static_cast<std::int64_t>(cu_seqlens.size());
  const TensorView all = TensorView::contiguous(memory_.data(), DType::i32, {total}, device.kind());
  device.copy(all, TensorView::contiguous(host_.data(), DType::i32, {total}), session_.ops().stream);
  MicroBatch micro_batch;
  micro_batch.batch = batch;
  micro_batch.sequence_length = length;
  micro_batch.tokens = all.slice(0, 0, count);
  if (!targets.empty()) micro_batch.targets = all.slice(0, count, count);
  micro_batch.positions = all.slice(0, 2 * count, count);
  if (!cu_seqlens.empty()) micro_batch.cu_seqlens = all.slice(0, 3 * count, total - 3 * count);
  return micro_batch;
}

MicroBatch MicroBatchBuffer::fill(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                  std::int64_t batch, std::int64_t first_position) {
  return upload(tokens, targets, batch, first_position, {});
}

MicroBatch MicroBatchBuffer::fill_packed(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                         std::int64_t batch, std::span<const std::int32_t> cu_seqlens) {
  return upload(tokens, targets, batch, 0, cu_seqlens);
}

}  // namespace lathe
