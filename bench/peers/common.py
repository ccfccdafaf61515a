"""What all implementations are given: shapes, random inputs as a model has them, the FLOPs that count."""

import dataclasses
import math

import torch

NOPE, ROPE, VALUE, LATENT = 128, 64, 128, 512
QK = NOPE + ROPE
SOFTMAX_SCALE = 1 / math.sqrt(QK)
PASSES = ("forward", "backward", "backward_deterministic")


@dataclasses.dataclass(frozen=True)
class Shape:
    batch: int
    seqlen: int
    causal: bool = True
    heads: int = 16

    @classmethod
    def parse(cls, text, heads):
        """"8x2048", or "1x4096:full" for one without a mask."""
        size, _, mask = text.partition(":")
        batch, seqlen = (int(part) for part in size.split("x"))
        if mask not in ("", "causal", "full"):
            raise ValueError(f"the mask of {text!r} is {mask!r}, allowed are causal and full")
        return cls(batch, seqlen, mask != "full", heads)

    def __str__(self):
        return f"{self.batch}x{self.seqlen}" + ("" if self.causal else ":full")

    def flops(self, pass_name):
        """Two products of the forward, five of the backward; half of them where causal."""
        forward = 2 * self.batch * self.heads * self.seqlen**2 * (QK + VALUE) / (2 if self.causal else 1)
        return forward if pass_name == "forward" else 2.5 * forward

    def sets(self, least_bytes):
        """Sets of inputs in rotation that are least_bytes in all, by the smallest view of a set; 2 or more."""
        one = 2 * self.batch * self.seqlen * (self.heads * (QK + NOPE + VALUE) + ROPE)
        return max(2, -(-least_bytes // one))


class Inputs:
    """One set. q_nope is a slice of the query projection's output, k_nope and v are slices of kv_b_proj's, k_pe of the
    latent's; q_pe comes out of rope. q, k, v are the same, concatenated and contiguous."""

    def __init__(self, shape, device, generator):
        b, s, h = shape.batch, shape.seqlen, shape.heads

        def normal(*dims):
            return torch.randn(*dims, device=device, dtype=torch.bfloat16, generator=generator)

        self.q_nope = normal(b, s, h, QK)[..., :NOPE]
        self.q_pe = normal(b, s, h, ROPE)
        kv = normal(b, s, h, NOPE + VALUE)
        self.k_nope, v = kv[..., :NOPE], kv[..., NOPE:]
        self.k_pe = normal(b, s, LATENT + ROPE)[..., LATENT:].unsqueeze(2)
        self.split_v = v
        self.do = normal(b, s, h, VALUE)
        self.q, self.k, self.v = concatenate(*self.split)

    @property
    def split(self):
        return self.q_nope, self.q_pe, self.k_nope, self.k_pe, self.split_v


def concatenate(q_nope, q_pe, k_nope, k_pe, v):
    """What a trainer does for a kernel that takes whole q and k."""
    heads = q_nope.shape[2]
    q = torch.cat([q_nope, q_pe], dim=-1)
    k = torch.cat([k_nope, k_pe.expand(-1, -1, heads, -1)], dim=-1)
    return q, k, v.contiguous()


def split_gradients(dq, dk, dv):
    """The way back: the parts contiguous, the shared rope head's gradient summed over the heads."""
    dk_pe = dk[..., NOPE:].sum(dim=2, keepdim=True)
    return dq[..., :NOPE].contiguous(), dq[..., NOPE:].contiguous(), dk[..., :NOPE].contiguous(), dk_pe, dv
