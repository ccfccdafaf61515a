#include "train/sample_batch.h"

namespace lathe {

void SampleBatch::append() {
  const auto first_row = static_cast<std::int32_t>(tokens_.size());
  cu_seqlens_.push_back(first_row);
  for (const std::int32_t start : starts_) cu_seqlens_.push_back(first_row + start);
  tokens_.insert(tokens_.end(), sample_.begin(), sample_.end() - 1);
  targets_.insert(targets_.end(), sample_.begin() + 1, sample_.end());
  ++count_;
}

MicroBatch SampleBatch::upload(MicroBatchBuffer& buffer) const {
  if (!reset_attention_mask_) return buffer.fill(tokens_, targets_, count_);
  std::vector<std::int32_t> cu_seqlens = cu_seqlens_;
  cu_seqlens.push_back(static_cast<std::int32_t>(tokens_.size()));
  return buffer.fill_packed(tokens_, targets_, count_, cu_seqlens);
}

}  // namespace lathe
