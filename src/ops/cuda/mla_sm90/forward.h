// The forward of MLA attention on Hopper: checks, workspace, launches.
#pragma once

#include <cstddef>

#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

std::size_t mla_sm90_forward_workspace(const MlaAttentionProblem& problem);
void mla_sm90_forward(const Context& context, const MlaAttentionForward& op);

}  // namespace lathe::ops::cuda
