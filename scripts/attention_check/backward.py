"""The backward: five gradients, with and without dlse, in any order of sums and deterministic.

Truth is torch's autograd through plain attention in fp64, where the references run: on a GPU in a hundredth of the
time; the reference is the same in bf16. The device's backward gets the o and lse of the device's forward.
"""

import math

import torch

import lathe

from .forward import Forward, layout_problems, packed_problems, value_problems
from .problem import INPUTS, NOPE, SCALE, Problem, make_values, place
from .reference import SCORES_AT_ONCE, Mismatch, attention, beyond_rounding, concatenated, largest, same_bits

GRADIENTS = tuple("d" + name for name in INPUTS)


class Backward:
    """A problem's forward, what comes back to it, and its gradients on the device."""

    def __init__(self, problem, device, with_dlse, values=None):
        self.problem, self.device = problem, device
        values = dict(make_values(problem) if values is None else values)
        do = values.pop("do")
        dlse = values.pop("dlse", None)
        if with_dlse and dlse is None:
            dlse = torch.randn(problem.lse_shape, generator=torch.Generator().manual_seed(9))
        self.values = values
        self.forward = Forward(problem, device, self.values)
        self.results = self.forward.outputs()
        self.forward.prepare(self.results)()
        names = ("do", "dlse") if with_dlse else ("do",)
        back = place(problem, names)
        back["do"].copy_(do)
        if with_dlse:
            back["dlse"].copy_(dlse)
        self.do, self.dlse, self.back = do, dlse, back.to(device)

    def prepare(self, gradients, deterministic, **options):
        tensors = [self.forward.inputs[name] for name in INPUTS]
        tensors += [self.results["o"], self.results["lse"], self.back["do"], *(gradients[name] for name in GRADIENTS)]
        return lathe.prepare_mla_backward(
            *tensors, dlse=self.back.get("dlse"), softmax_scale=SCALE, causal=self.problem.causal,
            deterministic=deterministic, **self.forward.cu_seqlens, **options)

    def outputs(self):
        return place(self.problem, GRADIENTS).to(self.device)

    def run(self, deterministic):
        """The gradients on the host, by name."""
        gradients = self.outputs()
        self.prepare(gradients, deterministic)()
        if self.device == "cuda":
            torch.cuda.synchronize()
        gradients = gradients.to("cpu")
        if not gradients.intact():
            raise Mismatch("memory beside a gradient was written")
        return gradients


def by_autograd(problem, values, do, dlse, device, dtype):
    """Gradients through eager attention in that type, fp64 on the host."""
    gradients = {name: torch.zeros(problem.shape(name), dtype=torch.float64) for name in GRADIENTS}
    for q_at, k_at in problem.sequences():
        s_q, s_k = values["q_nope"][q_at].shape[0], values["k_nope"][k_at].shape[0]
        if s_q == 0 or s_k == 0:
            continue
        step = max(1, SCORES_AT_ONCE // (2 * s_q * s_k))
        for first in range(0, problem.h, step):
            heads = slice(first, first + step)
            q, k, v = (t.to(dtype).requires_grad_() for t in concatenated(values, q_at, k_at, heads, device))
            o, lse = attention(q, k, v, problem.causal, exact_scores=False)
            seeds, outputs = [do[q_at][:, heads].transpose(0, 1).to(o)], [o]
            if dlse is not None:
                seeds.append(dlse[problem.lse_at(q_at, heads)].to(lse).masked_fill(lse.isneginf(), 0))
                outputs.append(lse)
            dq, dk, dv = (t.transpose(0, 1).cpu().double() for t in torch.autograd.grad(outputs, (q, k, v), seeds))
            gradients["dq_nope"][q_at][:, heads] = dq[..., :NOPE]
            gradients["dq_pe"][q_at][:, heads] = dq[..., NOPE:]
            gradients["dk_nope"][k_at][:, heads] = dk[..., :NOPE]
            gradients["dk_pe"][k_at] += dk[..., NOPE:].sum(1, keepdim=True)
            gradients["dv"][k_at][:, heads] = dv
    return gradients


def longest(tensor):
    """The largest norm of a row."""
    return largest(tensor.double().square().sum(-1).sqrt())


def rounding(problem, values, do):
    """What the rounding of dP - D may add to each gradient. Over queries and heads its parts have either sign."""
    each = 2.0**-20 * SCALE * longest(do) * longest(values["v"])
    queries = max(problem.q_lengths) if problem.packed else problem.s_q
    terms = {"dq_nope": 1, "dq_pe": 1, "dk_nope": queries, "dk_pe": queries * problem.h}
    factors = {"dq_nope": "k_nope", "dq_pe": "k_pe", "dk_nope": "q_nope", "dk_pe": "q_pe"}
    added = {name: each * math.sqrt(terms[name]) * largest(values[factors[name]].double().abs()) for name in terms}
    return added | {"dv": 0.0}


def check(problem, device, reference_device, with_dlse):
    """Both modes against one truth."""
    backward = Backward(problem, device, with_dlse)
    modes = {"": backward.run(deterministic=False), " deterministic": backward.run(deterministic=True)}
    arguments = problem, backward.values, backward.do, backward.dlse
    true, plain = (by_autograd(*arguments, reference_device, dtype) for dtype in (torch.float64, torch.bfloat16))
    added = rounding(problem, backward.values, backward.do)
    measured, wrong = {}, []
    for name in GRADIENTS:
        slack = 2 * largest((plain[name] - true[name]).abs()) + added[name]
        for mode, gradients in modes.items():
            got = gradients[name]
            if got.isnan().any():
                raise Mismatch(f"{int(got.isnan().sum())} NaN of {got.numel()} in {name}{mode}")
            error = beyond_rounding(got, true[name])
            measured[name + mode] = {"beyond_rounding": error, "slack": slack}
            if error > slack:
                wrong.append(f"{name}{mode} is off by {error:.3e} beyond rounding, allowed {slack:.3e}")
    if wrong:
        raise Mismatch("; ".join(wrong), measured)
    return measured


def check_leaks(problem, device):
    """Each sequence's gradients, bit for bit, while all others' inputs and do are NaN."""
    values = make_values(problem)
    values["dlse"] = torch.randn(problem.lse_shape)
    clean = Backward(problem, device, True, values).run(deterministic=True)
    sequences = problem.sequences()
    for number in range(0, len(sequences), max(1, len(sequences) // 6)):
        q_at, k_at = sequences[number]
        poisoned = {}
        for name, value in values.items():
            if name == "dlse":
                at = problem.lse_at(q_at)
            else:
                at = k_at if name in ("k_nope", "k_pe", "v") else q_at
            poisoned[name] = torch.full_like(value, float("nan"))
            poisoned[name][at] = value[at]
        got = Backward(problem, device, True, poisoned).run(deterministic=True)
        for name in GRADIENTS:
            at = q_at if name.startswith("dq") else k_at
            if not same_bits(clean[name][at], got[name][at]):
                raise Mismatch(f"NaN in other sequences changed {name} of sequence {number}")
    return {}


def problems(quick):
    number = 0
    for s in (1, 64, 65, 200) if quick else (1, 63, 64, 65, 127, 128, 129, 200, 1000, 2048):
        for h in (1, 3) if quick else (1, 3, 16):
            for causal in (True, False):
                number += 1
                yield Problem(h=h, causal=causal, b=1 + number % 2 if s < 2048 else 1, s_q=s, s_k=s, seed=number)
    if not quick:
        yield Problem(h=128, b=1, s_q=200, s_k=200, seed=5)
        yield Problem(h=8, b=1, s_q=4097, s_k=4097, seed=6)
        # Few jobs, which the fast mode cuts into up to 2, 4 and 4 parts.
        for h, s in ((4, 1000), (2, 2000), (1, 4097)):
            yield Problem(h=h, b=1, s_q=s, s_k=s, seed=h)
        # More jobs than the device has multiprocessors.
        yield Problem(h=16, q_lengths=(1500, 1, 640, 0, 300), k_lengths=(1500, 70, 640, 30, 900), seed=7)
        # So many queries that dQ is worked on in sections, the last one narrower.
        for s_q, s_k in ((333, 333), (333, 700), (700, 130)):
            yield Problem(h=64, causal=s_k != 700, b=5, s_q=s_q, s_k=s_k, seed=s_k)
        yield Problem(h=100, q_lengths=(500, 1, 260, 0, 300), k_lengths=(500, 70, 260, 30, 300), seed=8)
    for s_q, s_k in ((63, 200), (200, 63), (65, 64), (257, 1)):
        for causal in (True, False):
            number += 1
            yield Problem(h=3, causal=causal, b=2, s_q=s_q, s_k=s_k, seed=number)
    if quick:
        for layout in ("contiguous", "transposed", "gapped", "shared"):
            yield Problem(h=3, b=2, s_q=129, s_k=200, layout=layout, seed=number)
        for causal in (True, False):
            yield Problem(h=3, causal=causal, q_lengths=(65, 200, 1, 0, 40, 129), k_lengths=(65, 130, 77, 64, 0, 129))
        for values in ("zero_queries", "equal_keys", "huge_key"):
            yield Problem(h=2, b=1, s_q=200, s_k=200, values=values)
    else:
        yield from layout_problems(quick, device="cpu")  # the huge one's gradients would not fit
        yield from (problem for _, problem in packed_problems(quick))
        yield from value_problems(quick)
