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

// The first `samples` samples (all if there are fewer), `micro_batch_size` at a time.
Evaluation evaluate(Session& session, MicroBatchBuffer& buffer, const ValidationSet& data, std::int64_t sequence_length,
                    std::int64_t samples, std::int64_t micro_batch_size);

}  // namespace lathe
