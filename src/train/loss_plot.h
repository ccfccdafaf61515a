// The picture of a run's loss, drawn by gnuplot.
#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace lathe {

// A horizontal line to compare with, e.g. {"3-gram", 1.83}.
struct ReferenceLoss {
  std::string name;
  double value = 0;
};

// Draws training and validation loss over steps from a run's metrics.jsonl as a PNG. Where that is not possible
// (no gnuplot, nothing to draw) it logs one warning and returns false: a picture is no reason to fail a run.
bool write_loss_plot(const std::filesystem::path& metrics, const std::filesystem::path& png,
                     std::span<const ReferenceLoss> references = {});

}  // namespace lathe
