// What the backward kernel is compiled for: tile sizes, each with the limit that set it, shared memory and barriers.
#pragma once

namespace lathe::ops::cuda {

// A job is 128 keys of a head; it walks over the tiles of 64 queries that see them. Two consumer warpgroups own 64 keys
// each. A step needs 3328 cycles of the tensor cores and sends 48 KB of dQ on its way.
struct BackwardTraits {
  static constexpr int kConsumers = 2;
  static constexpr int kThreads = 128 * (kConsumers + 1);
  // dK and dV of 64 keys are 160 accumulators a thread; with the 80 of a step's products, 240 registers are full. 64
  // keys a job would double the traffic of dQ.
  static constexpr int kKeys = 64 * kConsumers;
  static constexpr int kQueries = 64;
  static constexpr int kNope = 128, kRope = 64, kQk = kNope + kRope, kValue = 128;  // head sizes
  static constexpr int kConsumerRegisters = 240, kLoaderRegisters = 24;             // of 168 x 384, in steps of 8
  static constexpr int kStages = 2;  // of Q, dO and dS; a third of any does not fit 227 KB

  static constexpr int kPanelColumns = 64;
  static constexpr int kRowBytes = 2 * kPanelColumns;
  static constexpr int kKeyPanel = kKeys * kRowBytes;
  static constexpr int kQueryPanel = kQueries * kRowBytes;
  static constexpr int kConsumerRows = 64 * kRowBytes;  // of a key panel, one consumer's
  static constexpr int kNopePanels = kNope / kPanelColumns, kValuePanels = kValue / kPanelColumns;

  static constexpr int kKBytes = (kNopePanels + 1) * kKeyPanel;
  static constexpr int kVBytes = kValuePanels * kKeyPanel;
  static constexpr int kQBytes = (kNopePanels + 1) * kQueryPanel;  // nope panels, then rope
  static constexpr int kDoBytes = kValuePanels * kQueryPanel;
  static constexpr int kDsBytes = kKeyPanel;  // a row for a key, a column for a query
  // One consumer's half of dQ (64 queries, 96 columns, fp32), 16 bytes a thread in the order of its fragments.
  static constexpr int kDqHalfColumns = kQk / 2;
  static constexpr int kDqHalfFloats = kQueries * kDqHalfColumns;
  static constexpr int kDqHalfBytes = 4 * kDqHalfFloats;
  // dV of one consumer, or dK's nope columns: a part of a job hands over one of them, or both.
  static constexpr int kSumFloats = 64 * kValue;
  static_assert(kNope == kValue);
  static constexpr int kStatsFloats = 2 * kQueries;  // lse, delta of a query tile
  static constexpr int kStatsBytes = 4 * kStatsFloats;
  static constexpr int kJobBytes = 64;

  // K's panels lie as nope 0-63, rope, nope 64-127. So each half of dQ is one product over three panels: columns 0-95
  // of nope begin at the first panel, the next panel 2 panels on; rope and columns 96-127 of nope begin at the second
  // panel, the next panel one panel and 32 columns on.
  static constexpr int kRopePanelInK = 1, kLastNopePanelInK = 2;

  // Shared memory, in bytes.
  static constexpr int kOffsetK = 0;
  static constexpr int kOffsetV = kOffsetK + kKBytes;
  static constexpr int kOffsetQ = kOffsetV + kVBytes;
  static constexpr int kOffsetDo = kOffsetQ + kStages * kQBytes;
  static constexpr int kOffsetDs = kOffsetDo + kStages * kDoBytes;
  // Halves of dQ on their way out, one at a time, and at the end of a job dV. dK's nope columns leave through dS.
  static constexpr int kOffsetStaging = kOffsetDs + kStages * kDsBytes;
  static constexpr int kStagingBytes = kVBytes;
  static constexpr int kOffsetStats = kOffsetStaging + kStagingBytes;
  static constexpr int kJobSlots = 2;
  static constexpr int kOffsetJobs = kOffsetStats + kStages * kStatsBytes;
  static constexpr int kOffsetBarriers = kOffsetJobs + kJobSlots * kJobBytes;
  static constexpr int kBarriers = 26;
  static constexpr int kSharedBytes = kOffsetBarriers + 8 * kBarriers;
  static_assert(kStagingBytes >= kDqHalfBytes && kStages * kDsBytes >= kNopePanels * kKeyPanel);
  static_assert(kSharedBytes <= 227 * 1024);
};

}  // namespace lathe::ops::cuda
