"""What results are held against, and the bounds.

Truth of the forward is the `cpu` backend in fp64 on the bf16 inputs, of large problems torch in fp64; backward.py says
that of gradients. Two plain references in torch say what bf16 costs:
  eager: scores = bf16(bf16(q k^T) * scale), P = bf16(softmax in fp32), o = bf16(P v);
  exact scores: the same with scores in fp32.
Output o passes if at every element |o - truth| <= half an ulp of bf16 at the truth + slack, where slack is
  2 * max |eager - truth|, and also
  2 * max |exact scores - truth| + 2 * eps * max |v|.
eps is what scores and sums may be off by: 8 ulps of fp32 at 1 + max |lse| + scale * max |q_i| * max |k_j|, the largest
score that vectors of these lengths can have. lse passes if it is within eps of the truth, -inf exactly where the
truth is; a row that sees no key has o = 0. Gradients: half an ulp + 2 * max |eager's - truth| + what 8 ulps of fp32 in
dP - D, at max |do_i| * max |v_j|, come to: they are all that is left where a query sees one key and eager is exact.
"""

import torch

import lathe

from .problem import INPUTS, SCALE

SCORES_AT_ONCE = 1 << 27  # elements
MOST_CPU_FLOPS = 3e11  # of a truth that the `cpu` backend computes; a larger one is torch's in fp64 on the device


class Mismatch(Exception):
    """A result that breaks the contract."""


def truth(problem, values, device):
    """(o, lse) in fp64."""
    if device != "cpu" and problem.flops / (2 if problem.causal else 1) > MOST_CPU_FLOPS:
        return plain(problem, values, device, True, torch.float64)
    inputs = [values[name].double() for name in INPUTS]
    o = torch.empty(problem.shape("o"), dtype=torch.float64)
    lse = torch.empty(problem.lse_shape, dtype=torch.float64)
    options = dict(softmax_scale=SCALE, causal=problem.causal, backend="cpu", **problem.cu_seqlens("cpu"))
    lathe.mla_forward(*inputs, o, lse, **options)
    return o, lse


def hidden(s_q, s_k, device):
    """[s_q, s_k], true where causal hides the key."""
    i = torch.arange(s_q, device=device).unsqueeze(1)
    return torch.arange(s_k, device=device) > i + (s_k - s_q)


def attention(q, k, v, causal, exact_scores):
    """Plain attention on [h, s, d], bf16 or all in fp64, and lse; a row that sees no key gives 0 and -inf."""
    if q.dtype == torch.float64:
        scores = (q @ k.transpose(-1, -2)) * SCALE
    elif exact_scores:
        scores = (q.float() @ k.float().transpose(-1, -2)) * SCALE
    else:
        scores = ((q @ k.transpose(-1, -2)) * SCALE).float()
    seen = torch.ones(q.shape[-2], 1, dtype=torch.bool, device=q.device)
    if causal:
        mask = hidden(q.shape[-2], k.shape[-2], q.device)
        seen = ~mask.all(-1, keepdim=True)
        scores = scores.masked_fill(mask & seen, float("-inf"))
    p = (scores.softmax(-1) * seen).to(q.dtype)
    lse = scores.logsumexp(-1).masked_fill(~seen.squeeze(-1), float("-inf"))
    return p @ v, lse


def concatenated(values, q_at, k_at, heads, device):
    """q, k, v of one sequence and some heads, [h, s, d]."""
    q = torch.cat([values["q_nope"][q_at], values["q_pe"][q_at]], -1)[:, heads]
    k_nope = values["k_nope"][k_at][:, heads]
    k_pe = values["k_pe"][k_at].expand(-1, k_nope.shape[1], -1)
    tensors = q, torch.cat([k_nope, k_pe], -1), values["v"][k_at][:, heads]
    return [tensor.transpose(0, 1).contiguous().to(device) for tensor in tensors]


def plain(problem, values, device, exact_scores, dtype=torch.bfloat16):
    """(o, lse) of the reference in that type, fp64 on the host."""
    o = torch.zeros(problem.shape("o"), dtype=torch.float64)
    lse = torch.full(problem.lse_shape, float("-inf"), dtype=torch.float64)
    for q_at, k_at in problem.sequences():
        s_q, s_k = values["q_nope"][q_at].shape[0], values["k_nope"][k_at].shape[0]
        if s_q == 0 or s_k == 0:
            continue
        step = max(1, SCORES_AT_ONCE // (s_q * s_k))
        for first in range(0, problem.h, step):
            heads = slice(first, first + step)
            tensors = (tensor.to(dtype) for tensor in concatenated(values, q_at, k_at, heads, device))
            out, out_lse = attention(*tensors, problem.causal, exact_scores)
            o[q_at][:, heads] = out.transpose(0, 1).cpu().double()
            lse[problem.lse_at(q_at, heads)] = out_lse.cpu().double()
    return o, lse


def score_rounding(values, lse):
    """eps, above."""
    lse = largest(lse[lse.isfinite()].abs())
    q = (values["q_nope"].double().square().sum(-1) + values["q_pe"].double().square().sum(-1)).sqrt()
    k = (values["k_nope"].double().square().sum(-1) + values["k_pe"].double().square().sum(-1)).sqrt()
    return 2.0**-20 * (1 + lse + SCALE * largest(q) * largest(k))


def half_ulp(value):
    """Of bf16, at every element; 0 at 0."""
    _, exponent = torch.frexp(value)  # value in [2^(e-1), 2^e): an ulp is 2^(e-8)
    return torch.ldexp(torch.ones_like(value), exponent - 9) * (value != 0)


def largest(tensor):
    return tensor.max().item() if tensor.numel() else 0.0


def beyond_rounding(got, true):
    """The largest |got - true| - half an ulp, 0 or more."""
    return max(0.0, largest((got.double() - true).abs() - half_ulp(true)))


def same_bits(a, b):
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


class Expected:
    """The truth and the bounds of a problem's forward."""

    def __init__(self, problem, values, device):
        self.o, self.lse = truth(problem, values, device)
        self.eps = score_rounding(values, self.lse)
        self.eager_error = largest((plain(problem, values, device, False)[0] - self.o).abs())
        self.exact_error = largest((plain(problem, values, device, True)[0] - self.o).abs())
        self.v_max = largest(values["v"].double().abs())

    def compare(self, o, lse):
        """What was measured; raises Mismatch. o and lse lie on the host."""
        if o.isnan().any() or lse.isnan().any():
            raise Mismatch(f"{int(o.isnan().sum())} NaN of {o.numel()} in o, {int(lse.isnan().sum())} in lse")
        unseen = self.lse.isneginf()
        if not torch.equal(lse.isneginf(), unseen):
            raise Mismatch(f"lse is -inf in {int(lse.isneginf().sum())} rows, expected in {int(unseen.sum())}")
        rows = unseen.transpose(-1, -2)  # [.., s, h]
        if o[rows].count_nonzero():
            raise Mismatch("a row that sees no key has o other than 0")
        lse_error = largest((lse.double() - self.lse)[~unseen].abs())
        error = beyond_rounding(o, self.o)
        slack = min(2 * self.eager_error, 2 * self.exact_error + 2 * self.eps * self.v_max)
        measured = {"o_error": largest((o.double() - self.o).abs()), "o_beyond_rounding": error, "o_slack": slack,
                    "eager_error": self.eager_error, "exact_scores_error": self.exact_error, "lse_error": lse_error,
                    "lse_allowed": self.eps}
        if error > slack:
            raise Mismatch(f"o is off by {error:.3e} beyond rounding, allowed {slack:.3e}", measured)
        if lse_error > self.eps:
            raise Mismatch(f"lse is off by {lse_error:.3e}, allowed {self.eps:.3e}", measured)
        return measured
