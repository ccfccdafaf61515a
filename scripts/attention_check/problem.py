"""A call of the operator to check: its sizes, the values of its inputs and where they lie in memory.

Every tensor is a view into a region of NaN with a guard at either end, so that whatever a call reads beside its inputs
shows in its results, and whatever it writes beside its outputs shows in the region.
"""

import dataclasses
import math

import torch

NOPE, ROPE, VALUE, LATENT = 128, 64, 128, 512
SCALE = 1 / math.sqrt(NOPE + ROPE)
INPUTS = ("q_nope", "q_pe", "k_nope", "k_pe", "v")
WIDTHS = {"q_nope": NOPE, "q_pe": ROPE, "k_nope": NOPE, "k_pe": ROPE, "v": VALUE, "o": VALUE, "do": VALUE}
GUARD = 4096  # elements
# Integers of the same width whose bits are a NaN.
PATTERNS = {torch.bfloat16: (torch.int16, 0x7FA5), torch.float32: (torch.int32, 0x7FA57FA5),
            torch.float64: (torch.int64, 0x7FF57FA57FA57FA5)}


@dataclasses.dataclass(frozen=True)
class Problem:
    h: int
    causal: bool = True
    b: int = 1
    s_q: int = 0
    s_k: int = 0
    q_lengths: tuple = ()  # packed, if given; then b, s_q and s_k are not looked at
    k_lengths: tuple = ()
    values: str = "normal"
    layout: str = "fused"
    seed: int = 0

    @property
    def packed(self):
        return bool(self.q_lengths)

    @property
    def lead_q(self):
        return (sum(self.q_lengths),) if self.packed else (self.b, self.s_q)

    @property
    def lead_k(self):
        return (sum(self.k_lengths),) if self.packed else (self.b, self.s_k)

    @property
    def lse_shape(self):
        return (self.h, *self.lead_q) if self.packed else (self.b, self.h, self.s_q)

    def lse_at(self, q_at, heads=slice(None)):
        """Where lse has a sequence of sequences() and some heads."""
        return (heads, *q_at) if self.packed else (*q_at, heads)

    def shape(self, name):
        """Of an input, an output or a gradient."""
        name = name[1:] if name.startswith("d") and name != "do" else name
        if name == "lse":
            return self.lse_shape
        lead = self.lead_q if name in ("q_nope", "q_pe", "o", "do") else self.lead_k
        return *lead, 1 if name == "k_pe" else self.h, WIDTHS[name]

    @property
    def flops(self):
        """Of a forward without regard to the mask."""
        pairs = self.b * self.s_q * self.s_k
        if self.packed:
            pairs = sum(q * k for q, k in zip(self.q_lengths, self.k_lengths))
        return 2 * self.h * pairs * (NOPE + ROPE + VALUE)

    def sequences(self):
        """(index of the query tensors, of the key tensors) of every sequence; each picks [s, h, d]."""
        if not self.packed:
            return [((i,), (i,)) for i in range(self.b)]
        found, q, k = [], 0, 0
        for q_length, k_length in zip(self.q_lengths, self.k_lengths):
            found.append(((slice(q, q + q_length),), (slice(k, k + k_length),)))
            q, k = q + q_length, k + k_length
        return found

    def cu_seqlens(self, device):
        """cu_seqlens_q and cu_seqlens_k as options of a call; {} where dense."""
        if not self.packed:
            return {}
        both = {"cu_seqlens_q": self.q_lengths, "cu_seqlens_k": self.k_lengths}
        return {
            name: torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32).to(device)
            for name, lengths in both.items()
        }

    def __str__(self):
        if self.packed:
            size = f"{len(self.q_lengths)} packed, {sum(self.q_lengths)}x{sum(self.k_lengths)}"
        else:
            size = f"{self.b} of {self.s_q}x{self.s_k}"
        return f"{size}, h {self.h}, {'causal' if self.causal else 'full'}, {self.values}, {self.layout}"


def normal(problem):
    generator = torch.Generator().manual_seed(1000 + problem.seed)
    return {name: torch.randn(problem.shape(name), generator=generator) for name in (*INPUTS, "do")}


def large(problem):
    return {name: 30 * value for name, value in normal(problem).items()}


def zero_queries(problem):
    values = normal(problem)
    return values | {name: torch.zeros_like(values[name]) for name in ("q_nope", "q_pe")}


def equal_keys(problem):
    values = normal(problem)
    for name in ("k_nope", "k_pe"):
        values[name] = values[name].flatten(0, -3)[:1].expand(problem.shape(name)).clone()
    return values


def huge_key(problem):
    """One key of every 50 is a hundred times as long as the others."""
    values = normal(problem)
    for name in ("k_nope", "k_pe"):
        values[name].flatten(0, -3)[7::50] *= 100
    return values


def very_negative(problem):
    """All scores are near -12,500 and below -12,000: q = 30 u, k = -30 u + noise."""
    values = normal(problem)
    for name in ("q_nope", "q_pe"):
        values[name] = 30 + 0.1 * values[name]
    for name in ("k_nope", "k_pe"):
        values[name] = -30 + 0.1 * values[name]
    return values


VALUES = {kind.__name__: kind for kind in (normal, large, zero_queries, equal_keys, huge_key, very_negative)}


def make_values(problem):
    """Contiguous bf16 tensors on the host: the five inputs and do."""
    return {name: value.to(torch.bfloat16) for name, value in VALUES[problem.values](problem).items()}


class Region:
    """Memory full of NaN; `inside` lies between the guards."""

    def __init__(self, shape, dtype, device="cpu"):
        kind, pattern = PATTERNS[dtype]
        count = math.prod(shape)
        self.bits = torch.full((count + 2 * GUARD,), pattern, dtype=kind, device=device)
        self.dtype = dtype
        self.inside = self.bits.view(dtype)[GUARD : GUARD + count].view(shape)

    def to(self, device):
        moved = object.__new__(Region)
        moved.bits, moved.dtype = self.bits.to(device, copy=True), self.dtype
        moved.inside = moved.at(self.inside)
        return moved

    def at(self, view):
        """The view of this region where `view` lies in its own."""
        return self.bits.view(self.dtype).as_strided(view.size(), view.stride(), view.storage_offset())

    def intact_but(self, views):
        """Whether all is as it was filled, apart from `views`."""
        kind, pattern = PATTERNS[self.dtype]
        bits = self.bits.clone()
        for view in views:
            bits.as_strided(view.size(), view.stride(), view.storage_offset()).fill_(pattern)
        return bool((bits == pattern).all())


class Views(dict):
    """Views by name, and the region of each."""

    def __init__(self):
        super().__init__()
        self.regions = {}

    def put(self, name, region, view):
        self[name] = view
        self.regions[name] = region

    def to(self, device):
        moved, regions = Views(), {}
        for name, view in self.items():
            region = self.regions[name]
            there = regions.setdefault(id(region), None) or region.to(device)
            regions[id(region)] = there
            moved.put(name, there, there.at(view))
        return moved

    def intact(self):
        """Whether no region changed outside of the views."""
        by_region = {}
        for name, view in self.items():
            by_region.setdefault(id(self.regions[name]), (self.regions[name], []))[1].append(view)
        return all(region.intact_but(views) for region, views in by_region.values())


def _own(problem, views, name, dtype=torch.bfloat16):
    region = Region(problem.shape(name), dtype)
    views.put(name, region, region.inside)


def _sides(problem, views, lead, heads, parts):
    """The parts, (name, width) each, side by side in one tensor; a name of None leaves a gap."""
    region, at = Region((*lead, heads, sum(width for _, width in parts)), torch.bfloat16), 0
    for name, width in parts:
        if name is not None:
            views.put(name, region, region.inside[..., at : at + width])
        at += width


def contiguous(problem, views, names):
    for name in names:
        _own(problem, views, name)


def fused(problem, views, names):
    """As a model has them: slices of the projections' outputs. o has a gap before every row."""
    prefix = "d" if "dv" in names else ""
    for lead, heads, parts in (
        (problem.lead_q, problem.h, [("q_nope", NOPE), ("q_pe", ROPE)]),
        (problem.lead_k, problem.h, [("k_nope", NOPE), ("v", VALUE)]),
        (problem.lead_k, 1, [(None, LATENT), ("k_pe", ROPE)]),
        (problem.lead_q, problem.h, [(None, ROPE), ("o", VALUE)]),
        (problem.lead_q, problem.h, [(None, ROPE), ("do", VALUE)]),
    ):
        parts = [(name and (name if name == "do" else prefix + name), width) for name, width in parts]
        if any(name in names for name, _ in parts):
            _sides(problem, views, lead, heads, parts)


def transposed(problem, views, names):
    """[b, h, s, d]; packed [h, total, d]."""
    for name in names:
        *lead, heads, width = problem.shape(name)
        region = Region((*lead[:-1], heads, lead[-1], width), torch.bfloat16)
        views.put(name, region, region.inside.transpose(-3, -2))


def gapped(problem, views, names):
    """Rows of NaN between heads, tokens and sequences."""
    for name in names:
        *lead, heads, width = problem.shape(name)
        tokens = lead.pop()
        region = Region((*lead, tokens + 3, heads + 1, width + 8), torch.bfloat16)
        views.put(name, region, region.inside[..., :tokens, :heads, :width])


def shared(problem, views, names):
    """The inputs of all sequences are those of the first, by a stride of 0; what is written is contiguous."""
    for name in names:
        if name in INPUTS and not problem.packed:
            region = Region((1, *problem.shape(name)[1:]), torch.bfloat16)
            views.put(name, region, region.inside.expand(problem.shape(name)))
        else:
            _own(problem, views, name)


def huge(problem, views, names):
    """All in one region, sequences more than 2^31 elements apart. Dense."""
    apart, region_at = 2**31 + 64, 0
    sizes = {name: math.prod(problem.shape(name)[1:]) for name in names}
    region = Region((apart * (problem.b - 1) + sum(sizes.values()),), torch.bfloat16)
    for name in names:
        shape = problem.shape(name)
        strides = (apart, shape[2] * shape[3], shape[3], 1)
        views.put(name, region, region.inside.as_strided(shape, strides, region.inside.storage_offset() + region_at))
        region_at += sizes[name]


LAYOUTS = {layout.__name__: layout for layout in (contiguous, fused, transposed, gapped, shared, huge)}


def place(problem, names):
    """Views of NaN by name, on the host; lse fp32, with a gap after every row where the layout has gaps."""
    views = Views()
    LAYOUTS[problem.layout](problem, views, [name for name in names if name not in ("lse", "dlse")])
    for name in set(names) & {"lse", "dlse"}:
        *lead, length = problem.lse_shape
        gap = 4 if problem.layout in ("fused", "gapped") else 0
        region = Region((*lead, length + gap), torch.float32)
        views.put(name, region, region.inside[..., :length])
    return views


def place_inputs(problem, values):
    """The inputs of `values` in the problem's layout; where that shares memory, `values` becomes what stands there."""
    views = place(problem, [name for name in values if name in WIDTHS])
    for name in views:
        if problem.layout == "shared" and name in INPUTS and not problem.packed:
            values[name] = values[name][:1].expand(problem.shape(name)).contiguous()
            views.regions[name].inside.copy_(values[name][:1])
        else:
            views[name].copy_(values[name])
    return views
