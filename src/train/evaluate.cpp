#include "train/evaluate.h"

#include <algorithm>

#include "train/host_copy.h"
#include "train/sample_batch.h"

namespace lathe {

Evaluation evaluate(Session& session, MicroBatchBuffer& buffer, const ValidationSet& data,
                    const EvaluationOptions& options) {
  const std::int64_t samples = std::min(options.samples, data.num_samples());
  Evaluation result;
  result.tokens = samples * options.sequence_length;
  Buffer loss_memory(session.device(), sizeof(double), "validation loss");
  const TensorView loss = TensorView::contiguous(loss_memory.data(), DType::f64, {1}, session.device().kind());
  session.device().fill_zero(loss, session.ops().stream);
  for (std::int64_t begin = 0; begin < samples; begin += options.micro_batch_size) {
    SampleBatch batch(options.sequence_length, options.reset_attention_mask);
    const std::int64_t end = std::min(samples, begin + options.micro_batch_size);
    for (std::int64_t i = begin; i < end; ++i) batch.add(data, i);
    session.model().forward_loss(batch.upload(buffer), 1.0 / static_cast<double>(result.tokens), loss);
  }
  result.loss = read_scalar(session.device(), session.ops().stream, loss);
  return result;
}

}  // namespace lathe
