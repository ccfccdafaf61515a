"""Gradients in fp64, for shapes whose scores of one head fit the device."""

import math

import torch

from peers.common import NOPE, SOFTMAX_SCALE

LARGEST_SCORES = 2048 * 2048  # of a head; larger ones would take minutes


def affordable(shape):
    return shape.batch == 1 and shape.seqlen**2 <= LARGEST_SCORES


def gradients(shape, inputs):
    """dq_nope, dq_pe, dk_nope, dk_pe (summed over the heads), dv in fp64."""
    hidden = torch.ones(shape.seqlen, shape.seqlen, device=inputs.q.device, dtype=torch.bool).triu(1)
    per_head = []
    for head in range(shape.heads):
        q, k, v = (tensor[0, :, head].double().requires_grad_() for tensor in (inputs.q, inputs.k, inputs.v))
        scores = q @ k.T * SOFTMAX_SCALE
        if shape.causal:
            scores = scores.masked_fill(hidden, -math.inf)
        o = scores.softmax(-1) @ v
        per_head.append(torch.autograd.grad(o, (q, k, v), inputs.do[0, :, head].double()))
    dq, dk, dv = (torch.stack(parts, dim=1).unsqueeze(0) for parts in zip(*per_head))
    dk_pe = dk[..., NOPE:].sum(dim=2, keepdim=True)
    return dq[..., :NOPE], dq[..., NOPE:], dk[..., :NOPE], dk_pe, dv


NAMES = ("dq_nope", "dq_pe", "dk_nope", "dk_pe", "dv")


def errors(got, true):
    """By name: the norm of the difference over the norm, and the largest difference."""
    found = {}
    for name, mine, exact in zip(NAMES, got, true):
        difference = mine.double() - exact
        found[name] = {"norm": (difference.norm() / exact.norm()).item(), "largest": difference.abs().max().item()}
    return found
