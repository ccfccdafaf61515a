// The argument structs of include/lathe/lathe.h as the ops' own.
#pragma once

#include "lathe/lathe.h"
#include "ops/mla_attention.h"

namespace lathe::capi {

// Throw InputError with the field and its value for an enum, flag, rank or shape that means nothing, and for a tensor
// without data. Where only shapes are checked, no tensor's data is looked at. The workspace is left out.
ops::MlaAttentionForward op_of(const lathe_mla_forward_args& args, ops::Checked checked);
ops::MlaAttentionBackward op_of(const lathe_mla_backward_args& args, ops::Checked checked);

}  // namespace lathe::capi
