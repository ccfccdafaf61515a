"""The forward: accuracy over sizes, values, layouts and packings; what must not matter must not change a bit."""

import dataclasses
import random

import torch

import lathe

from .problem import INPUTS, SCALE, Problem, make_values, place, place_inputs
from .reference import MOST_CPU_FLOPS, Expected, Mismatch, same_bits

LENGTHS = (1, 63, 64, 65, 127, 128, 129, 200, 1000, 2048, 4097)
HEADS = (1, 3, 16, 128)
# (s_q, s_k), longer by what is no multiple of a tile and by what is.
UNEQUAL = ((1, 129), (63, 200), (65, 64), (100, 1000), (129, 128), (200, 63), (128, 320), (257, 1), (1000, 37),
           (777, 2048))


class Forward:
    """A problem's inputs and outputs on the device."""

    def __init__(self, problem, device, values=None):
        self.problem, self.device = problem, device
        self.values = make_values(problem) if values is None else values
        self.values.pop("do", None)
        self.inputs = place_inputs(problem, self.values).to(device)
        self.cu_seqlens = problem.cu_seqlens(device)

    def outputs(self):
        return place(self.problem, ("o", "lse")).to(self.device)

    def prepare(self, outputs, **options):
        tensors = [self.inputs[name] for name in INPUTS]
        options = dict(softmax_scale=SCALE, causal=self.problem.causal, **self.cu_seqlens) | options
        return lathe.prepare_mla_forward(*tensors, outputs["o"], outputs["lse"], **options)

    def run(self, **options):
        """(o, lse) on the host, of poisoned outputs; raises Mismatch where anything beside them was written."""
        outputs = self.outputs()
        self.prepare(outputs, **options)()
        return self.fetch(outputs)

    def fetch(self, outputs):
        if self.device == "cuda":
            torch.cuda.synchronize()
        outputs = outputs.to("cpu")
        if not outputs.intact():
            raise Mismatch("memory beside o or lse was written")
        return outputs["o"], outputs["lse"]


def check(problem, device, reference_device):
    """The problem twice: against the truth, and bit for bit against itself."""
    forward = Forward(problem, device)
    o, lse = forward.run()
    measured = Expected(problem, forward.values, reference_device).compare(o, lse)
    again = forward.run()
    if not (same_bits(o, again[0]) and same_bits(lse, again[1])):
        raise Mismatch("a second run gave other bits")
    return measured


def accuracy_problems(quick):
    lengths, heads = (LENGTHS, HEADS) if not quick else ((1, 63, 64, 65, 129, 200), (1, 3))
    number = 0
    for s in lengths:
        for h in heads:
            for causal in (True, False):
                number += 1
                problem = Problem(h=h, causal=causal, b=1 + number % 3, s_q=s, s_k=s, seed=number)
                if problem.flops > MOST_CPU_FLOPS:
                    problem = dataclasses.replace(problem, b=1)
                if problem.flops / (2 if causal else 1) <= MOST_CPU_FLOPS:
                    yield problem
    for s_q, s_k in UNEQUAL if not quick else UNEQUAL[:3] + UNEQUAL[5:8]:
        for causal in (True, False):
            number += 1
            yield Problem(h=3, causal=causal, b=1 + number % 3, s_q=s_q, s_k=s_k, seed=number)


def paired_problems():
    """Long rows of many heads, which pairs of blocks share (forward.cpp: cluster_for), with ends of all kinds."""
    yield Problem(h=16, b=3, s_q=4097, s_k=4097, seed=1)
    yield Problem(h=64, b=1, s_q=4096, s_k=5000, seed=2)
    yield Problem(h=64, b=1, s_q=6000, s_k=4100, seed=3)
    yield Problem(h=50, causal=False, b=1, s_q=4200, s_k=4161, seed=4)


def value_problems(quick):
    lengths = ((200, 200), (200, 63)) if quick else ((128, 128), (200, 200), (1000, 1000), (2048, 2048), (200, 63))
    for values in ("large", "zero_queries", "equal_keys", "huge_key", "very_negative"):
        for s_q, s_k in lengths:
            for causal in (True, False):
                yield Problem(h=2, causal=causal, b=2, s_q=s_q, s_k=s_k, values=values, seed=s_q)


def layout_problems(quick, device):
    for layout in ("contiguous", "fused", "transposed", "gapped", "shared"):
        for causal in (True, False):
            yield Problem(h=3, causal=causal, b=3, s_q=200, s_k=200, layout=layout, seed=5)
            yield Problem(h=4, causal=causal, b=2, s_q=129, s_k=333, layout=layout, seed=6)
        if layout != "shared":
            yield Problem(h=3, q_lengths=(65, 1, 200), k_lengths=(65, 130, 77), layout=layout, seed=7)
    if device == "cuda" and not quick:
        yield Problem(h=2, b=2, s_q=130, s_k=130, layout="huge", seed=8)


def packings(quick):
    """(name, q lengths, k lengths)"""
    rng = random.Random(3)
    short = tuple(rng.randint(1, 70) for _ in range(40 if quick else 300))
    mixed = tuple(rng.randint(1, 300) for _ in range(9))
    long = (600,) if quick else (4097,)
    return (
        ("equal", (200,) * 4, (200,) * 4),
        ("many short", short, short),
        ("one long", long + short[:40], long + short[:40]),
        ("one long last", short[:40] + long, short[:40] + long),
        ("no queries", (65, 0, 64, 0), (65, 30, 64, 1)),
        ("no keys", (65, 40, 1, 0), (0, 130, 0, 64)),
        ("empty", (0, 128, 0, 0, 65, 0), (0, 128, 0, 0, 65, 0)),
        ("q and k differ", mixed, mixed[::-1]),
        ("around a tile", (127, 128, 129, 127), (127, 128, 129, 127)),
        ("around a tile, differing", (127, 128, 129), (129, 127, 128)),
    )


def packed_problems(quick):
    for number, (name, q_lengths, k_lengths) in enumerate(packings(quick)):
        for causal in (True, False):
            for h in (3,) if quick else (3, 16):
                yield name, Problem(h=h, causal=causal, q_lengths=q_lengths, k_lengths=k_lengths, seed=number)


def check_leaks(problem, device):
    """Each sequence's results, bit for bit, while all others' inputs are NaN."""
    clean = Forward(problem, device)
    o, lse = clean.run()
    sequences = problem.sequences()
    for number in range(0, len(sequences), max(1, len(sequences) // 6)):
        q_at, k_at = sequences[number]
        values = {}
        for name in INPUTS:
            at = q_at if name.startswith("q") else k_at
            values[name] = torch.full_like(clean.values[name], float("nan"))
            values[name][at] = clean.values[name][at]
        got_o, got_lse = Forward(problem, device, values).run()
        lse_at = problem.lse_at(q_at)
        if not (same_bits(o[q_at], got_o[q_at]) and same_bits(lse[lse_at], got_lse[lse_at])):
            raise Mismatch(f"NaN in other sequences changed sequence {number}")
    return {}


def leak_problems(quick):
    for causal in (True, False):
        yield Problem(h=2, causal=causal, b=3, s_q=200, s_k=200)
        yield Problem(h=2, causal=causal, b=2, s_q=65, s_k=129)
        yield Problem(h=2, causal=causal, q_lengths=(65, 200, 1, 127, 130), k_lengths=(65, 130, 77, 127, 200))
        if not quick:
            yield Problem(h=2, causal=causal, q_lengths=tuple(range(1, 60)), k_lengths=tuple(range(1, 60)))
