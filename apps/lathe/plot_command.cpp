#include <vector>

#include "core/error.h"
#include "data/ngram.h"
#include "lathe/commands.h"
#include "train/loss_plot.h"

namespace lathe {

int run_plot(const PlotOptions& options) {
  const std::filesystem::path metrics = options.run / "metrics.jsonl";
  require(std::filesystem::is_regular_file(metrics), "{}: no such file; expected a run's folder", metrics.string());
  require(options.counted.has_value() == options.measured.has_value(), "--data and --against go together");
  std::vector<ReferenceLoss> references;
  if (options.counted) {
    const NgramEntropy entropy = ngram_entropy(TokenFile(*options.counted), TokenFile(*options.measured));
    for (std::size_t order = 1; order <= entropy.nats_per_token.size(); ++order)
      references.push_back({fmt::format("{}-gram", order), entropy.nats_per_token[order - 1]});
  }
  const std::filesystem::path png = options.run / "loss.png";
  if (write_loss_plot(metrics, png, references)) fmt::print("{}\n", png.string());
  return 0;
}

}  // namespace lathe
