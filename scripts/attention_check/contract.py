"""What both passes promise beside their numbers: equal bits in every run, graphs, streams, workspaces, refusals."""

import torch

import lathe

from .backward import GRADIENTS, Backward
from .forward import Forward
from .problem import INPUTS, SCALE, Problem
from .reference import Mismatch, same_bits


def repeat_problems(quick):
    if quick:
        return [Problem(h=2, b=2, s_q=200, s_k=200)]
    return [
        Problem(h=16, s_q=2048, s_k=2048),
        Problem(h=16, causal=False, s_q=1000, s_k=1000),
        Problem(h=3, q_lengths=(1000, 1, 65, 129, 300), k_lengths=(1000, 70, 65, 300, 129)),
        Problem(h=64, b=5, s_q=333, s_k=333),  # the backward works on it in sections
    ]


def check_repeat(problem, device, runs):
    """Equal bits over `runs` runs into the same outputs, which are NaN before each."""
    forward = Forward(problem, device)
    outputs = forward.outputs()
    call = forward.prepare(outputs)
    call()
    return _same_again(forward, outputs, call, runs)


def check_graph(problem, device, runs):
    """The same of a captured CUDA graph, against a call outside of it."""
    forward = Forward(problem, device)
    expected = forward.run()
    outputs, stream = forward.outputs(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    call = forward.prepare(outputs, stream=stream.cuda_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    graph.replay()
    torch.cuda.synchronize()
    if not all(same_bits(a, b) for a, b in zip(expected, forward.fetch(outputs))):
        raise Mismatch("the graph's results are not the call's")
    return _same_again(forward, outputs, graph.replay, runs)


def _same_again(forward, outputs, call, runs):
    _wait(forward.device)
    first = {name: view.clone() for name, view in outputs.items()}
    for number in range(runs):
        for view in outputs.values():
            view.fill_(float("nan"))
        _wait(forward.device)
        call()
        _wait(forward.device)
        for name, view in outputs.items():
            if not same_bits(first[name], view):
                raise Mismatch(f"run {number + 2} gave other bits in {name}")
    forward.fetch(outputs)
    return {"runs": runs}


def _wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def check_streams(rounds):
    """Two calls at once, on two streams with a workspace each, give what they give alone."""
    problems = Problem(h=16, b=1, s_q=1000, s_k=1000), Problem(h=3, causal=False, b=4, s_q=333, s_k=700, seed=2)
    forwards = [Forward(problem, "cuda") for problem in problems]
    expected = [forward.run() for forward in forwards]
    outputs = [forward.outputs() for forward in forwards]
    calls = []
    for forward, views in zip(forwards, outputs):
        tensors = [forward.inputs[name] for name in INPUTS]
        size = lathe.mla_forward_workspace_size(
            *tensors, views["o"], views["lse"], softmax_scale=SCALE, causal=forward.problem.causal)
        workspace = torch.zeros(max(size, 256), dtype=torch.uint8, device="cuda")
        calls.append((forward, views, workspace, torch.cuda.Stream()))
    torch.cuda.synchronize()
    prepared = [
        forward.prepare(views, workspace=workspace, stream=stream.cuda_stream)
        for forward, views, workspace, stream in calls
    ]
    for _ in range(rounds):
        for views in outputs:
            for view in views.values():
                view.fill_(float("nan"))
        torch.cuda.synchronize()
        for call in prepared:
            call()
        for forward, views, alone in zip(forwards, outputs, expected):
            if not all(same_bits(a, b) for a, b in zip(alone, forward.fetch(views))):
                raise Mismatch(f"{forward.problem}: other bits beside another call")
    return {"rounds": rounds}


def check_backward_repeat(problem, device, runs, graph=False):
    """Deterministic gradients over `runs` runs, or replays of a captured CUDA graph, into NaN: equal bits."""
    backward = Backward(problem, device, with_dlse=True)
    gradients = backward.outputs()
    expected = {name: tensor.clone() for name, tensor in backward.run(deterministic=True).items()}
    call = backward.prepare(gradients, deterministic=True)
    if graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        call = backward.prepare(gradients, deterministic=True, stream=stream.cuda_stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, stream=stream):
            call()
        call = captured.replay
    for number in range(runs):
        for name in GRADIENTS:
            gradients[name].fill_(float("nan"))
        _wait(device)
        call()
        _wait(device)
        for name in GRADIENTS:
            if not same_bits(expected[name].to(device), gradients[name]):
                raise Mismatch(f"run {number + 1} gave other bits in {name}")
    return {"runs": runs}


def check_backward_streams(rounds, deterministic):
    """Three backwards at once, on streams of two priorities with a workspace each, give what they give alone: to the
    bit if deterministic, else the norm of the difference is at most 1% of the norm."""
    problems = (
        Problem(h=16, b=1, s_q=1000, s_k=1000),
        Problem(h=3, causal=False, b=4, s_q=333, s_k=700, seed=2),
        Problem(h=64, b=5, s_q=333, s_k=333, seed=3),  # in sections
    )
    backwards = [Backward(problem, "cuda", with_dlse=True) for problem in problems]
    expected = [backward.run(deterministic=True) for backward in backwards]
    outputs = [backward.outputs() for backward in backwards]
    torch.cuda.synchronize()
    # Of torch's own streams: each has its workspace.
    streams = [torch.cuda.Stream(priority=priority) for priority in (0, -1, 0)]
    calls = [backward.prepare(gradients, deterministic, stream=stream.cuda_stream)
             for backward, gradients, stream in zip(backwards, outputs, streams)]
    expected = [{name: alone[name].to("cuda") for name in GRADIENTS} for alone in expected]

    def equal(alone, got):
        if deterministic:
            return same_bits(alone, got)
        return bool((alone.float() - got.float()).norm() <= 1e-2 * alone.float().norm())

    for _ in range(rounds):
        for gradients in outputs:
            for name in GRADIENTS:
                gradients[name].fill_(float("nan"))
        torch.cuda.synchronize()
        for call in calls:
            call()
        torch.cuda.synchronize()
        for backward, gradients, alone in zip(backwards, outputs, expected):
            if not all(equal(alone[name], gradients[name]) for name in GRADIENTS):
                raise Mismatch(f"{backward.problem}: other gradients beside another call")
    return {"rounds": rounds}


def check_one_workspace(device):
    """Forward, backward, forward of other shapes and packed ones on one workspace: each as it was without the others."""
    problems = [
        Problem(h=16, b=2, s_q=300, s_k=300),
        Problem(h=3, q_lengths=(65, 200, 1, 0, 40, 129), k_lengths=(65, 130, 77, 64, 0, 129)),
        Problem(h=2, causal=False, b=1, s_q=700, s_k=90),
    ]
    backwards = [Backward(problem, device, with_dlse=True) for problem in problems]
    expected = [(backward.forward.run(), backward.run(deterministic=True)) for backward in backwards]
    workspace = torch.zeros(1 << 27, dtype=torch.uint8, device=device)
    for backward, (forward, gradients) in 2 * list(zip(backwards, expected)):
        for deterministic in (False, True):
            backward.prepare(backward.outputs(), deterministic, workspace=workspace)()
        if not all(same_bits(a, b) for a, b in zip(forward, backward.forward.run(workspace=workspace))):
            raise Mismatch(f"{backward.problem}: other bits of the forward after a backward")
        got = backward.outputs()
        backward.prepare(got, True, workspace=workspace)()
        _wait(device)
        if not all(same_bits(gradients[name].to(device), got[name]) for name in GRADIENTS):
            raise Mismatch(f"{backward.problem}: other bits of the backward")
    return {}


INVALID, UNSUPPORTED = "LATHE_STATUS_INVALID_ARGUMENT", "LATHE_STATUS_UNSUPPORTED"


def refusals(device):
    """(name, change of the prepared call's arguments, allowed statuses, what the message holds)"""

    def dtype(args):
        args.k_nope.dtype = 0

    def length(args):
        args.k_pe.shape[1] = 71

    def last_stride(args):
        args.v.strides[3] = 2

    def shared_output(args):
        args.o.strides[1] = 0

    def lse_shape(args):
        args.lse.shape[2] = 71

    def one_cu_seqlens(args):
        args.cu_seqlens_q.rank = 1
        args.cu_seqlens_q.dtype = 3
        args.cu_seqlens_q.shape[0] = 2
        args.cu_seqlens_q.strides[0] = 1
        args.cu_seqlens_q.data = args.q_nope.data

    def unknown_backend(args):
        args.backend = b"sm123"

    cases = [
        ("k_nope fp32 beside bf16", dtype, (INVALID,), ("k_nope", "f32", "bf16")),
        ("k_pe of another length", length, (INVALID,), ("k_pe", "71", "70")),
        ("v with a last stride of 2", last_stride, (INVALID,), ("v",)),
        ("o through a stride of 0", shared_output, (INVALID,), ("o",)),
        ("lse of another length", lse_shape, (INVALID,), ("lse", "71", "70")),
        ("cu_seqlens_q alone", one_cu_seqlens, (INVALID,), ("cu_seqlens_k",)),
        ("an unknown backend", unknown_backend, (INVALID, UNSUPPORTED), ("sm123", "sm90")),
    ]
    return cases + (sm90_refusals() if device == "cuda" else [])


def sm90_refusals():
    either = (INVALID, UNSUPPORTED)

    def pointer(args):
        args.q_pe.data += 2

    def stride(args):
        args.k_nope.strides[1] += 4
        stride.words = ("k_nope", str(args.k_nope.strides[1]))

    def fp32(args):
        for name in INPUTS + ("o",):
            getattr(args, name).dtype = 0

    def nope_64(args):
        args.q_nope.shape[3] = args.k_nope.shape[3] = 64

    def nope_192(args):
        args.q_nope.shape[3] = args.k_nope.shape[3] = 192

    def small(args):
        args.workspace_size -= 1

    def misaligned(args):
        args.workspace += 16

    def none(args):
        args.workspace = None

    return [
        ("a pointer of 2 bytes past 16", pointer, either, ("q_pe", "16")),
        ("a stride of no multiple of 8", stride, either, lambda: stride.words),
        ("fp32", fp32, either, ("f32",)),
        ("64 + 64 wide keys", nope_64, either, ("64", "128")),
        ("192 + 64 wide keys", nope_192, either, ("192", "128")),
        ("a workspace a byte too small", small, (INVALID,), ("workspace",)),
        ("a workspace aligned to 16", misaligned, (INVALID,), ("workspace", "256")),
        ("no workspace", none, (INVALID,), ("workspace",)),
    ]


def check_refusal(case, device):
    """The status, the clashing values in the message, and outputs as they were."""
    name, change, statuses, words = case
    problem = Problem(h=2, b=2, s_q=70, s_k=70, layout="contiguous")
    forward = Forward(problem, device)
    outputs = forward.outputs()
    options = {}
    if device == "cuda":  # of exactly the size that is needed, so that a byte less is too little
        tensors = [forward.inputs[name] for name in INPUTS]
        size = lathe.mla_forward_workspace_size(*tensors, outputs["o"], outputs["lse"], softmax_scale=SCALE)
        if size == 0 and "workspace" in name:
            return {"message": "it needs no workspace"}
        # 256 bytes more than that: the case of a misaligned pointer stays inside.
        memory = torch.zeros(size + 256, dtype=torch.uint8, device=device)
        options["workspace"] = memory[:size]
    call = forward.prepare(outputs, **options)
    change(call.args)
    try:
        call()
    except lathe.LatheError as error:
        refused = error
    else:
        raise Mismatch("it was not refused")
    if refused.status not in statuses:
        raise Mismatch(f"{refused}: expected {' or '.join(statuses)}")
    missing = [word for word in (words() if callable(words) else words) if word not in refused.message]
    if missing:
        raise Mismatch(f"the message does not say {', '.join(missing)}: {refused.message}")
    for view in outputs.values():  # as long as the views: none of their elements was written either
        if not view.isnan().all():
            raise Mismatch("outputs were written")
    forward.fetch(outputs)
    return {"status": refused.status, "message": refused.message}


def check_empty(device):
    """Sizes of zero are valid calls."""
    for problem in (Problem(h=2, b=0, s_q=5, s_k=5), Problem(h=2, b=1, s_q=0, s_k=5)):
        Forward(problem, device).run()
    o, lse = Forward(Problem(h=2, b=2, s_q=5, s_k=0), device).run()
    if o.count_nonzero() or not lse.isneginf().all():
        raise Mismatch("without keys, o is not 0 or lse not -inf")
    return {}
