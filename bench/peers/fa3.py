"""FlashAttention-3's CUDA C++ kernel (PyPI fa3-fwd): the forward alone."""

import importlib.metadata

import fa3_fwd_interface

from .common import SOFTMAX_SCALE


class Peer:
    name = "fa3"

    def __init__(self, device):
        self.version = "fa3-fwd " + importlib.metadata.version("fa3-fwd")

    def forward(self, shape, sample):
        def run(q, k, v, o, lse):
            options = dict(softmax_scale=SOFTMAX_SCALE, causal=shape.causal)
            return fa3_fwd_interface._flash_attn_forward(q, k, v, **options)[:2]

        return run

    def backward(self, shape, sample, deterministic):
        raise NotImplementedError("fa3-fwd holds no backward")
