// Mean cross-entropy over validation samples.
#pragma once

#include <cstdint>

#include "data/sampler.h"
#include "train/session.h"

namespace lathe {

struct Evaluation {
  double loss = 0;  // nats a token
  std::int64_t tokens = 0;
};

struct EvaluationOptions {
  std::int64_t sequence_length = 0;
  std::int64_t samples = 0;  // the first so many; all if there are fewer
  std::int64_t micro_batch_size = 1;
  bool reset_attention_mask = false;  // attention stays inside a document
};

Evaluation evaluate(Session& session, MicroBatchBuffer& buffer, const ValidationSet& data,
                    const EvaluationOptions& options);

}  // namespace lathe
