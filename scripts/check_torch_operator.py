#!/usr/bin/env python3
"""Checks lathe.mla_attention under torch: values and gradients, torch.compile, and that nothing is copied on the way.

  LATHE_LIBRARY=build/liblathe.so python3 scripts/check_torch_operator.py [--device cpu|cuda] [unittest's arguments]

In fp64 on a CPU, in bf16 on a GPU. How exact the kernels are is check_attention.py's business.
"""

import argparse
import pathlib
import sys
import unittest
from unittest import mock

import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import lathe  # noqa: E402
from attention_check.problem import LATENT, NOPE, ROPE, SCALE, VALUE  # noqa: E402
from attention_check.reference import attention  # noqa: E402

DEVICE = "cpu"


def dtype():
    return torch.float64 if DEVICE == "cpu" else torch.bfloat16


def projections(*tokens_q, s_k=None, heads=3, seed=0):
    """As a model has them: q [.., h, 192], k_nope and v in one [.., h, 256], k_pe behind the latent of another."""
    generator = torch.Generator().manual_seed(seed)
    tokens_k = (*tokens_q[:-1], s_k or tokens_q[-1])
    sizes = (*tokens_q, heads, NOPE + ROPE), (*tokens_k, heads, NOPE + VALUE), (*tokens_k, LATENT + ROPE)
    return [torch.randn(size, dtype=torch.float64, generator=generator).to(DEVICE, dtype()).requires_grad_()
            for size in sizes]


def split(q, kv, compressed):
    q_nope, q_pe = q.split([NOPE, ROPE], -1)
    k_nope, v = kv.split([NOPE, VALUE], -1)
    return q_nope, q_pe, k_nope, compressed[..., None, LATENT:], v


def attend(q, kv, compressed, **options):
    return lathe.mla_attention(*split(q, kv, compressed), SCALE, **options)


def formula(q, kv, compressed, causal=True):
    """(o, lse) of dense inputs in fp64."""
    q_nope, q_pe, k_nope, k_pe, v = (x.double().transpose(1, 2) for x in split(q, kv, compressed))
    k = torch.cat([k_nope, k_pe.expand(-1, k_nope.shape[1], -1, -1)], -1)
    o, lse = attention(torch.cat([q_nope, q_pe], -1), k, v, causal, True)
    return o.transpose(1, 2), lse


def gradients(function, inputs, *seeds):
    """Of the outputs that have a seed; fp64."""
    outputs = function(*inputs)
    pairs = [(o, s.to(o)) for o, s in zip(outputs, seeds) if s is not None]
    return [g.double() for g in torch.autograd.grad([o for o, _ in pairs], inputs, [s for _, s in pairs])]


class Recorder(TorchDispatchMode):
    """The ops that run, without those that only make views and empty tensors."""

    FREE = {"split_with_sizes", "split", "slice", "view", "alias", "detach", "unsqueeze", "empty_like", "new_empty"}

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in self.FREE:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def watch(name):
    return mock.patch.object(lathe.capi, name, wraps=getattr(lathe.capi, name))


def where(tensor):
    return tensor.data_ptr(), tensor.shape, tensor.stride()


class TorchOperator(unittest.TestCase):
    def near(self, got, expected, what=""):
        within = 1e-10 if DEVICE == "cpu" else 2e-2
        error = (got.double() - expected).norm() / expected.norm().clamp_min(1e-30)
        self.assertLessEqual(error.item(), within, what)

    def test_values_and_gradients_of_both_outputs(self):
        for tokens, s_k, causal in (((2, 70), None, True), ((1, 33), 90, True), ((2, 40), 25, False)):
            inputs = projections(*tokens, s_k=s_k)
            o, lse = attend(*inputs, causal=causal, return_lse=True)
            expected_o, expected_lse = formula(*inputs, causal=causal)
            self.near(o, expected_o)
            self.near(lse, expected_lse)
            seeds = torch.randn_like(expected_o), torch.randn_like(expected_lse)
            for given in (seeds, (seeds[0], None), (None, seeds[1])):
                got = gradients(lambda *x: attend(*x, causal=causal, return_lse=True), inputs, *given)
                expected = gradients(lambda *x: formula(*x, causal=causal), inputs, *given)
                for name, a, b in zip(("q", "kv", "compressed"), got, expected):
                    self.near(a, b, f"{name}, {tokens}, {s_k}, {[s is not None for s in given]}")

    def test_a_sum_s_gradient_is_one_number(self):
        inputs = projections(1, 20)
        attend(*inputs).sum().backward()
        expected = gradients(formula, inputs, torch.ones(1, 20, 3, VALUE))
        for x, b in zip(inputs, expected):
            self.near(x.grad, b)

    def test_packed_sequences_are_dense_ones_apart(self):
        lengths = (5, 0, 31, 64)
        inputs = projections(sum(lengths))
        cu_seqlens = torch.tensor([0, *lengths], device=DEVICE).cumsum(0, dtype=torch.int32)
        packed = attend(*inputs, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens, return_lse=True)
        self.assertEqual(packed[1].shape, (3, sum(lengths)))
        seeds = [torch.randn_like(x) for x in packed]
        got = torch.autograd.grad(packed, inputs, seeds)
        begin = 0
        for length in filter(None, lengths):
            rows = slice(begin, begin + length)
            one = [x[None, rows].detach().requires_grad_() for x in inputs]
            alone = formula(*one)
            self.near(packed[0][None, rows], alone[0])
            self.near(packed[1][None, :, rows], alone[1])
            seeds_of_it = seeds[0][None, rows].double(), seeds[1][None, :, rows].double()
            for a, b in zip(got, torch.autograd.grad(alone, one, seeds_of_it)):
                self.near(a[None, rows], b)
            begin += length

    def test_nothing_is_copied(self):
        """Neither before the operator nor in it: the library gets the memory of the caller's tensors."""
        inputs = projections(1, 64)
        with Recorder() as recorder, watch("mla_forward") as call:
            attend(*inputs)
        self.assertEqual(recorder.names, ["mla_attention_forward"])
        self.assertEqual([where(x) for x in call.call_args.args[:5]], [where(x) for x in split(*inputs)])
        parts = [x.detach().requires_grad_() for x in split(*inputs)]
        o = lathe.mla_attention(*parts, SCALE)
        seed = torch.randn_like(o)
        with Recorder() as recorder, watch("mla_backward") as call:
            got = torch.autograd.grad(o, parts, seed)
        self.assertEqual(recorder.names, ["mla_attention_backward"])
        given = *parts, o, call.call_args.args[6], seed, *got
        self.assertEqual([where(x) for x in call.call_args.args], [where(x) for x in given])

    def test_compiled_it_is_one_node_with_the_same_bits(self):
        seen = []

        def record(graph, example_inputs):
            seen.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
            return make_boxed_func(graph.forward)

        torch._dynamo.reset()
        inputs = projections(2, 40)
        compiled = torch.compile(attend, backend=aot_autograd(fw_compiler=record, bw_compiler=record), fullgraph=True)
        expected, got = attend(*inputs, deterministic=True), compiled(*inputs, deterministic=True)
        self.assertTrue(torch.equal(expected, got))
        seed = torch.randn_like(expected)
        for a, b in zip(torch.autograd.grad(expected, inputs, seed), torch.autograd.grad(got, inputs, seed)):
            self.assertTrue(torch.equal(a, b))
        for targets, name in zip(seen, ("forward", "backward"), strict=True):
            self.assertEqual(targets.count(f"lathe.mla_attention_{name}.default"), 1)
        for copies in ("clone", "cat", "copy", "expand", "contiguous"):
            self.assertFalse([target for target in seen[0] if copies in target], seen[0])

    def test_torch_s_own_check_of_operators(self):
        q_nope, q_pe, k_nope, k_pe, v = parts = [x.detach().requires_grad_() for x in split(*projections(1, 24))]
        operators = torch.ops.lathe
        torch.library.opcheck(operators.mla_attention_forward, (*parts, None, None, SCALE, True, True))
        with torch.no_grad():
            o, lse = operators.mla_attention_forward(*parts, None, None, SCALE, True, True)
            tensors = [x.detach() for x in (q_nope, q_pe, k_nope, k_pe, v, o, lse)]
            torch.library.opcheck(operators.mla_attention_backward,
                                  (torch.randn_like(o), None, *tensors, None, None, SCALE, True, True))

    def test_determinism_follows_torch_s_switch(self):
        inputs = projections(1, 30)
        for switch, option, expected in ((True, None, True), (False, None, False), (True, False, False)):
            torch.use_deterministic_algorithms(switch)
            try:
                o = attend(*inputs, deterministic=option)
            finally:
                torch.use_deterministic_algorithms(False)
            with watch("mla_backward") as call:
                o.sum().backward()
            self.assertEqual(call.call_args.kwargs["deterministic"], expected)

    def test_second_derivatives_are_refused(self):
        inputs = projections(1, 8)
        first = torch.autograd.grad(attend(*inputs).sum(), inputs, create_graph=True)
        with self.assertRaisesRegex(RuntimeError, "no autograd formula"):
            torch.autograd.grad(first[0].sum(), inputs)

    def test_pith_train_s_name(self):
        parts = split(*projections(1, 16))
        self.assertTrue(torch.equal(lathe.mla_flash_attn_func(*parts, SCALE, NOPE, True),
                                    lathe.mla_attention(*parts, SCALE)))
        with self.assertRaisesRegex(ValueError, "qk_nope_head_dim is 96, but q_nope has 128 columns"):
            lathe.mla_flash_attn_func(*parts, SCALE, 96, True)

    def test_bad_input_names_the_clash(self):
        q_nope, q_pe, k_nope, k_pe, v = split(*projections(1, 16))
        with self.assertRaisesRegex(lathe.LatheError, "k_nope"):
            lathe.mla_attention(q_nope, q_pe, k_nope[:, :, :2], k_pe, v, SCALE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)  # unittest has a help of its own
    parser.add_argument("--device", choices=("cpu", "cuda"), default=DEVICE)
    options, arguments = parser.parse_known_args()
    DEVICE = options.device
    torch.manual_seed(1)
    unittest.main(argv=[sys.argv[0], *arguments])
