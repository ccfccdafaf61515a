"""FlashAttention-4 (PyPI flash-attn-4): CuTe-DSL kernels, forward and backward."""

import importlib.metadata

from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

from .common import SOFTMAX_SCALE


class Peer:
    name = "fa4"

    def __init__(self, device):
        distributions = ("flash-attn-4", "nvidia-cutlass-dsl")
        self.version = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions)

    def forward(self, shape, sample):
        def run(q, k, v, o, lse):
            options = dict(softmax_scale=SOFTMAX_SCALE, causal=shape.causal, return_lse=True, out=o, lse=lse)
            return _flash_attn_fwd(q, k, v, **options)[:2]

        return run

    def backward(self, shape, sample, deterministic):
        def run(q, k, v, o, lse, do, dq, dk, dv):
            options = dict(softmax_scale=SOFTMAX_SCALE, causal=shape.causal, deterministic=deterministic)
            _flash_attn_bwd(q, k, v, o, do, lse, dq=dq, dk=dk, dv=dv, **options)

        return run
