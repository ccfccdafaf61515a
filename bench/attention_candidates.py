"""What is timed at one shape: a call for every input set, for Lathe and for every peer, in either scope.

`operator` begins and ends with the split tensors of a model; for a peer it concatenates q and k (the rope head
expanded), makes v contiguous and runs the kernel, and for gradients takes all that apart again. `kernel` is the peer's
kernel alone on tensors that were concatenated before.
"""

import dataclasses
import types

import torch

import lathe
from peers import common


@dataclasses.dataclass
class Candidate:
    impl: str
    scope: str
    version: str
    calls: list  # one a set; a call returns what it computed as the operator's results
    counters: torch.Tensor | None = None  # [SM cycles, nanoseconds] of Lathe's kernel

    @property
    def label(self):
        return f"{self.impl} {self.scope}"


def outputs(shape, device):
    b, s, h = shape.batch, shape.seqlen, shape.heads
    o = torch.empty(b, s, h, common.VALUE, device=device, dtype=torch.bfloat16)
    return o, torch.empty(b, h, s, device=device, dtype=torch.float32)


def sample_of(inputs, o, lse, gradients=None):
    dq, dk, dv = gradients or (None, None, None)
    return types.SimpleNamespace(
        q=inputs.q, k=inputs.k, v=inputs.v, do=inputs.do, o=o, lse=lse, dq=dq, dk=dk, dv=dv)


def peer_forward(peer, shape, sets, scopes):
    device = sets[0].q.device
    results = [outputs(shape, device) for _ in sets]
    run = peer.forward(shape, sample_of(sets[0], *results[0]))

    def kernel(inputs, result):
        return run(inputs.q, inputs.k, inputs.v, *result)

    def operator(inputs, result):
        return run(*common.concatenate(*inputs.split), *result)

    return _in_scopes(peer, scopes, kernel, operator, list(zip(sets, results)))


def peer_backward(peer, shape, sets, scopes, deterministic):
    device = sets[0].q.device
    results = [outputs(shape, device) for _ in sets]
    forward = peer.forward(shape, sample_of(sets[0], *results[0]))
    for inputs, result in zip(sets, results):
        forward(inputs.q, inputs.k, inputs.v, *result)
    gradients = [torch.empty_like(tensor) for tensor in (sets[0].q, sets[0].k, sets[0].v)]
    run = peer.backward(shape, sample_of(sets[0], *results[0], gradients), deterministic)

    def kernel(inputs, result):
        run(inputs.q, inputs.k, inputs.v, *result, inputs.do, *gradients)
        return gradients

    def operator(inputs, result):
        run(*common.concatenate(*inputs.split), *result, inputs.do, *gradients)
        return common.split_gradients(*gradients)

    return _in_scopes(peer, scopes, kernel, operator, list(zip(sets, results)))


def _in_scopes(peer, scopes, kernel, operator, arguments):
    made = []
    for scope, call in (("kernel", kernel), ("operator", operator)):
        if scope in scopes:
            calls = [lambda call=call, pair=pair: call(*pair) for pair in arguments]
            made.append(Candidate(peer.name, scope, peer.version, calls))
    return made


def _returning(call, results):
    def run():
        call()
        return results

    return run


def _lathe(shape, sets, stream):
    """What Lathe's calls of both passes share; workspace None: the binding makes one."""
    device = sets[0].q.device
    counters = torch.zeros(2, dtype=torch.int64, device=device) if device.type == "cuda" else None
    options = dict(softmax_scale=common.SOFTMAX_SCALE, causal=shape.causal)
    results = [outputs(shape, device) for _ in sets]
    backend, _ = lathe.mla_backend(*sets[0].split, *results[0], **options)
    return counters, dict(options, stream=stream), results, f"{lathe.version()} {backend}"


def lathe_forward(shape, sets, stream):
    counters, options, results, version = _lathe(shape, sets, stream)
    calls = [
        _returning(lathe.prepare_mla_forward(*inputs.split, *result, clock_counters=counters, **options), result)
        for inputs, result in zip(sets, results)
    ]
    return [Candidate("lathe", "operator", version, calls, counters)]


def lathe_backward(shape, sets, stream, deterministic):
    counters, options, results, version = _lathe(shape, sets, stream)
    b, s, h, device = shape.batch, shape.seqlen, shape.heads, sets[0].q.device
    dq = torch.empty(b, s, h, common.QK, device=device, dtype=torch.bfloat16)
    dkv = torch.empty(b, s, h, common.NOPE + common.VALUE, device=device, dtype=torch.bfloat16)
    dk_pe = torch.empty(b, s, 1, common.ROPE, device=device, dtype=torch.bfloat16)
    gradients = dq[..., : common.NOPE], dq[..., common.NOPE :], dkv[..., : common.NOPE], dk_pe, dkv[..., common.NOPE :]
    calls = []
    for inputs, result in zip(sets, results):
        lathe.mla_forward(*inputs.split, *result, **options)
        call = lathe.prepare_mla_backward(
            *inputs.split, *result, inputs.do, *gradients, deterministic=deterministic, clock_counters=counters,
            **options)
        calls.append(_returning(call, gradients))
    return [Candidate("lathe", "operator", version, calls, counters)]
