"""cuDNN frontend's flex attention: CuTe-DSL kernels that take a mask as intervals of keys."""

import cudnn
import torch
from cudnn.flex_attention import FlexAttentionBwd, FlexAttentionFwd, create_mask_plan

from .common import SOFTMAX_SCALE


def plan(shape, sample, backward):
    """Query i sees the keys [0, i + 1), or all."""
    s = shape.seqlen
    first = torch.arange(1, s + 1, device="cuda") if shape.causal else torch.full((s,), s, device="cuda")
    ends = first.to(torch.int32).repeat(shape.batch).view(1, 1, -1).contiguous()
    return create_mask_plan(ends, sample.q, sample.k, sample.v, build_backward=backward)


def compiled(kernel):
    kernel.check_support()
    kernel.compile()
    return kernel, torch.empty(max(kernel.workspace_size, 256), device="cuda", dtype=torch.uint8)


class Peer:
    name = "flex"

    def __init__(self, device):
        self.version = f"cudnn-frontend {cudnn.__version__} flex_attention"

    def forward(self, shape, sample):
        mask = plan(shape, sample, backward=False)
        kernel, workspace = compiled(FlexAttentionFwd(sample.q, sample.k, sample.v, sample.o, mask, sample.lse))

        def run(q, k, v, o, lse):
            kernel.execute(q, k, v, o, mask, lse, workspace=workspace, softmax_scale=SOFTMAX_SCALE)
            return o, lse

        return run

    def backward(self, shape, sample, deterministic):
        mask = plan(shape, sample, backward=True)
        tensors = (sample.q, sample.k, sample.v, sample.o, sample.do, sample.lse, sample.dq, sample.dk, sample.dv)
        kernel, workspace = compiled(FlexAttentionBwd(*tensors, mask, deterministic=deterministic))

        def run(q, k, v, o, lse, do, dq, dk, dv):
            tensors = (q, k, v, o, do, lse, dq, dk, dv)
            kernel.execute(*tensors, mask, workspace=workspace, softmax_scale=SOFTMAX_SCALE)

        return run
