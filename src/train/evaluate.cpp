#include "train/evaluate.h"

#include <algorithm>
#include <vector>

#include "train/host_copy.h"

namespace lathe {

Evaluation evaluate(Session& session, MicroBatchBuffer& buffer, const ValidationSet& data, std::int64_t sequence_length,
                    std::int64_t samples, std::int64_t micro_batch_size) {
  samples = std::min(samples, data.num_samples());
  Evaluation result;
  result.tokens = samples * sequence_length;
  Buffer loss_memory(session.device(), sizeof(double), "validation loss");
  const TensorView loss = TensorView::contiguous(loss_memory.data(), DType::f64, {1}, session.device().kind());
  session.device().fill_zero(loss, session.ops().stream);

  const auto length = static_cast<std::size_t>(sequence_length);
  std::vector<std::int32_t> sample(length + 1);
  for (std::int64_t begin = 0; begin < samples; begin += micro_batch_size) {
    const std::int64_t count = std::min(micro_batch_size, samples - begin);
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> targets;
    for (std::int64_t i = 0; i < count; ++i) {
      data.sample(begin + i, sample);
      tokens.insert(tokens.end(), sample.begin(), sample.end() - 1);
      targets.insert(targets.end(), sample.begin() + 1, sample.end());
    }
    const MicroBatch batch = buffer.fill(tokens, targets, count);
    session.model().forward_loss(batch, 1.0 / static_cast<double>(result.tokens), loss);
  }
  result.loss = read_scalar(session.device(), session.ops().stream, loss);
  return result;
}

}  // namespace lathe
