// The backward of MLA attention on Hopper: checks, workspace, launches.
#pragma once

#include <cstddef>

#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

std::size_t mla_sm90_backward_workspace(const MlaAttentionProblem& problem);
void mla_sm90_backward(const Context& context, const MlaAttentionBackward& op);

}  // namespace lathe::ops::cuda
