#include "train/session.h"

#include <numeric>

namespace lathe {
namespace {

Buffer allocate_flat(Device& device, const ParameterLayout& layout, DType dtype, const std::string& name) {
  return Buffer(device, static_cast<std::size_t>(layout.size()) * size_of(dtype), name);
}

}  // namespace

Session::Session(const Runtime& runtime, const ModelConfig& config, const Options& options)
    : config_(config),
      layout_(config_),
      scratch_(*runtime.device, "scratch"),
      activations_(*runtime.device, "activations"),
      ops_{.table = runtime.table, .device = runtime.device.get(), .stream = {}, .scratch = &scratch_},
      weights_memory_(allocate_flat(*runtime.device, layout_, options.dtype, "weights")) {
  const DeviceKind kind = runtime.device->kind();
  weights_ = TensorView::contiguous(weights_memory_.data(), options.dtype, {layout_.size()}, kind);
  if (options.gradients) {
    gradients_memory_ = allocate_flat(*runtime.device, layout_, options.dtype, "gradients");
    gradients_ = TensorView::contiguous(gradients_memory_.data(), options.dtype, {layout_.size()}, kind);
    runtime.device->fill_zero(gradients_, ops_.stream);
  }
  model_ = std::make_unique<Model>(config_, layout_, ops_, activations_, weights_, gradients_, options.max_positions);
}

MicroBatchBuffer::MicroBatchBuffer(Session& session, std::int64_t rows)
    : session_(session),
      memory_(session.device(), static_cast<std::size_t>(4 * rows + 1) * sizeof(std::int32_t), "micro-batch tokens") {
  const TensorView all = TensorView::contiguous(memory_.data(), DType::i32, {4 * rows + 1}, session.device().kind());
  tokens_ = all.slice(0, 0, rows);
  targets_ = all.slice(0, rows, rows);
  positions_ = all.slice(0, 2 * rows, rows);
  cu_seqlens_ = all.slice(0, 3 * rows, rows + 1);
}

TensorView MicroBatchBuffer::upload(const TensorView& room, std::span<const std::int32_t> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  const TensorView host =
      TensorView::contiguous(const_cast<std::int32_t*>(values.data()), DType::i32, {count}, DeviceKind::cpu);
  const TensorView view = room.slice(0, 0, count);
  session_.device().copy(view, host, session_.ops().stream);
  return view;
}

MicroBatch MicroBatchBuffer::fill(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                  std::int64_t batch, std::int64_t first_position) {
  check(batch > 0 && tokens.size() % static_cast<std::size_t>(batch) == 0, "{} tokens do not make {} sequences",
        tokens.size(), batch);
  const std::int64_t length = static_cast<std::int64_t>(tokens.size()) / batch;
  std::vector<std::int32_t> positions(tokens.size());
  for (std::int64_t sequence = 0; sequence < batch; ++sequence)
    std::iota(positions.begin() + sequence * length, positions.begin() + (sequence + 1) * length,
              static_cast<std::int32_t>(first_position));
  MicroBatch micro_batch;
  micro_batch.batch = batch;
  micro_batch.sequence_length = length;
  micro_batch.tokens = upload(tokens_, tokens);
  micro_batch.targets = targets.empty() ? TensorView{} : upload(targets_, targets);
  micro_batch.positions = upload(positions_, positions);
  return micro_batch;
}

MicroBatch MicroBatchBuffer::fill_packed(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                         std::int64_t batch, std::span<const std::int32_t> cu_seqlens) {
  MicroBatch micro_batch = fill(tokens, targets, batch);
  micro_batch.cu_seqlens = upload(cu_seqlens_, cu_seqlens);
  return micro_batch;
}

}  // namespace lathe
