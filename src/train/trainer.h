// A training run from its settings to its last checkpoint.
#pragma once

#include "train/run_config.h"
#include "train/session.h"

namespace lathe {

// Trains as docs and README say: everything is validated before the first line is printed (InputError: nothing was
// written). Returns when max_steps are done, or after SIGTERM or SIGINT with the step in flight finished and saved.
void train(const RunConfig& config, const Runtime& runtime);

}  // namespace lathe
