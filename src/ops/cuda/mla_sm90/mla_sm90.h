// MLA attention on Hopper as a backend.
#pragma once

#include "ops/mla_attention.h"

namespace lathe::ops::cuda {

const MlaAttentionBackend& mla_sm90();

}  // namespace lathe::ops::cuda
