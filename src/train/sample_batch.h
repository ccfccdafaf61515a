// Samples put together into one micro-batch.
#pragma once

#include <cstdint>
#include <vector>

#include "train/session.h"

namespace lathe {

class SampleBatch {
 public:
  // reset_attention_mask: attention stays inside a document.
  SampleBatch(std::int64_t sequence_length, bool reset_attention_mask)
      : sample_(static_cast<std::size_t>(sequence_length) + 1), reset_attention_mask_(reset_attention_mask) {}

  // `source` is a Sampler or a ValidationSet.
  template <typename Source>
  void add(const Source& source, std::int64_t index) {
    source.sample(index, sample_, reset_attention_mask_ ? &starts_ : nullptr);
    append();
  }

  MicroBatch upload(MicroBatchBuffer& buffer) const;

 private:
  void append();

  std::vector<std::int32_t> sample_;  // the one being added
  std::vector<std::int32_t> starts_;  // of documents inside it
  bool reset_attention_mask_;
  std::int64_t count_ = 0;
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int32_t> cu_seqlens_;  // without the end
};

}  // namespace lathe
