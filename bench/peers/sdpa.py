"""torch's scaled_dot_product_attention: on cuDNN on a GPU, where no other of its kernels takes 192 and 128."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .common import SOFTMAX_SCALE


class Peer:
    name = "sdpa"

    def __init__(self, device):
        self.backends = [SDPBackend.CUDNN_ATTENTION] if device == "cuda" else [SDPBackend.MATH]
        self.version = f"torch {torch.__version__} " + self.backends[0].name.lower()
        if device == "cuda":
            self.version += f" {torch.backends.cudnn.version()}"

    def forward(self, shape, sample):
        def run(q, k, v, o, lse):
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            with sdpa_kernel(self.backends):
                out = scaled_dot_product_attention(q, k, v, is_causal=shape.causal, scale=SOFTMAX_SCALE)
            return out.transpose(1, 2), None

        return run

    def backward(self, shape, sample, deterministic):
        raise NotImplementedError("only through autograd, which runs the forward again")
