#!/usr/bin/env python3
"""Checks the attention operator through the C interface on a device: a table, a JSON file, exit code 1 on a failure.

  LATHE_LIBRARY=build/liblathe.so python3 scripts/check_attention.py
  ... --device cpu --quick          the same on the `cpu` backend with bf16 inputs, small sizes
  compute-sanitizer python3 scripts/check_attention.py --sanitize       few and tiny; torch computes on the host

What is compared with what, and how near it must be, stands in attention_check/reference.py. The truth needs many
processors: OMP_NUM_THREADS is theirs.
"""

import argparse
import collections
import datetime
import json
import pathlib
import shlex
import sys
import time
import traceback

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import lathe  # noqa: E402
from attention_check import backward, contract, forward  # noqa: E402
from attention_check.problem import INPUTS, SCALE, Problem  # noqa: E402
from attention_check.reference import Mismatch  # noqa: E402

SECTIONS = ("accuracy", "paired", "values", "layouts", "packed", "leaks", "repeat", "graph", "streams", "refused")


class Checks:
    def __init__(self, options):
        self.options = options
        self.deadline = time.monotonic() + options.budget_seconds
        self.results = []
        self.device_lost = False

    def run(self, section, name, body):
        """One check; a failure is a line and the next one follows, unless the device is lost."""
        if self.device_lost or time.monotonic() > self.deadline:
            self.results.append({"section": section, "case": name, "status": "left out"})
            return
        started = time.monotonic()
        result = {"section": section, "case": name, "status": "passed"}
        try:
            result["measured"] = body()
        except Mismatch as error:
            result |= {"status": "FAILED", "error": error.args[0]}
            if len(error.args) > 1:
                result["measured"] = error.args[1]
        except lathe.LatheError as error:
            result |= {"status": "FAILED", "error": str(error)}
        except Exception as error:  # anything else is a failure too, and the others are still worth knowing
            result |= {"status": "FAILED", "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            if self.options.verbose:
                traceback.print_exc()
            self.device_lost = self.options.device == "cuda" and not alive()
        result["seconds"] = round(time.monotonic() - started, 3)
        self.results.append(result)
        if result["status"] == "FAILED" or self.options.verbose:
            print(f"{result['status']}: {section}: {name}: {result.get('error', '')}", flush=True)

    @property
    def failed(self):
        return not self.results or any(result["status"] != "passed" for result in self.results)

    def table(self):
        by_section = collections.defaultdict(list)
        for result in self.results:
            by_section[result["section"]].append(result)
        lines = ["section            cases passed failed  other  seconds  worst error, of allowed: o, lse"]
        for section, results in by_section.items():
            count = collections.Counter(result["status"] for result in results)
            other = len(results) - count["passed"] - count["FAILED"]
            seconds = sum(result.get("seconds", 0) for result in results)
            lines.append(f"{section:18} {len(results):5} {count['passed']:6} {count['FAILED']:6} {other:6} "
                         f"{seconds:8.1f}  {worst(results)}")
        return "\n".join(lines)

    def write(self):
        options = self.options
        device = torch.cuda.get_device_name(0) if options.device == "cuda" else "cpu"
        counts = collections.Counter(result["status"] for result in self.results)
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        report = {"commit": options.commit, "date": date, "command": shlex.join(["python3", *sys.argv]),
                  "device": device, "version": lathe.version(), "counts": counts, "results": self.results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def alive():
    try:
        torch.cuda.synchronize()
        return True
    except Exception:
        return False


def worst(results):
    """The largest error of its allowed, of o or a gradient and of lse."""
    values, lses = [], []
    for measured in (result.get("measured") or {} for result in results):
        if measured.get("lse_allowed"):
            lses.append(measured["lse_error"] / measured["lse_allowed"])
        pairs = [(measured.get("o_beyond_rounding"), measured.get("o_slack"))]
        pairs += [(m["beyond_rounding"], m["slack"]) for m in measured.values() if isinstance(m, dict)]
        values += [error / slack for error, slack in pairs if slack]
    return ", ".join(f"{max(ratios):.2f}" for ratios in (values, lses) if ratios)


def run_forward(checks, sections):
    options = checks.options
    device, quick = options.device, options.quick
    reference_device = device

    def against_truth(section, problems):
        for problem in problems:
            checks.run(section, str(problem), lambda: forward.check(problem, device, reference_device))

    if "accuracy" in sections:
        against_truth("accuracy", forward.accuracy_problems(quick))
    if "paired" in sections and device == "cuda" and not quick:
        against_truth("paired", forward.paired_problems())
    if "values" in sections:
        against_truth("values", forward.value_problems(quick))
    if "layouts" in sections:
        against_truth("layouts", forward.layout_problems(quick, device))
    if "packed" in sections:
        for name, problem in forward.packed_problems(quick):
            checks.run("packed", f"{name}: {problem}", lambda: forward.check(problem, device, reference_device))
    if "leaks" in sections:
        for problem in forward.leak_problems(quick):
            checks.run("leaks", str(problem), lambda: forward.check_leaks(problem, device))
    runs = 5 if quick else 100
    paired = [] if quick else list(forward.paired_problems())[-2:]
    for problem in contract.repeat_problems(quick) + paired:
        if "repeat" in sections:
            checks.run("repeat", str(problem), lambda: contract.check_repeat(problem, device, runs))
        if "graph" in sections and device == "cuda":
            checks.run("graph", str(problem), lambda: contract.check_graph(problem, device, runs))
    if "streams" in sections and device == "cuda":
        checks.run("streams", "two at once", lambda: contract.check_streams(50))
    if "refused" in sections:
        checks.run("refused", "sizes of zero are taken", lambda: contract.check_empty(device))
        for case in contract.refusals(device):
            checks.run("refused", case[0], lambda: contract.check_refusal(case, device))


def run_backward(checks):
    device, quick = checks.options.device, checks.options.quick
    for number, problem in enumerate(backward.problems(quick)):
        with_dlse = number % 2 == 0
        name = f"{problem}, {'dlse' if with_dlse else 'no dlse'}"
        checks.run("backward", name, lambda: backward.check(problem, device, device, with_dlse))
    for problem in forward.leak_problems(quick):
        checks.run("backward leaks", str(problem), lambda: backward.check_leaks(problem, device))
    for number, problem in enumerate(contract.repeat_problems(quick)):
        runs = 3 if quick else 100 if number else 1000
        checks.run("backward repeat", str(problem), lambda: contract.check_backward_repeat(problem, device, runs))
        if device == "cuda":
            checks.run("backward graph", str(problem),
                       lambda: contract.check_backward_repeat(problem, device, 20, graph=True))
    if device == "cuda":
        for deterministic in (True, False):
            checks.run("backward streams", f"three at once, {'' if deterministic else 'not '}deterministic",
                       lambda: contract.check_backward_streams(50, deterministic))
    checks.run("workspace", "one for all", lambda: contract.check_one_workspace(device))


def run_sanitized(checks, passes):
    """Few and tiny; references on the host."""
    device = checks.options.device
    problems = (
        Problem(h=2, b=2, s_q=130, s_k=130),
        Problem(h=1, b=1, s_q=256, s_k=256, causal=False),
        Problem(h=1, b=1, s_q=1030, s_k=130, causal=False),  # the fast backward cuts its jobs into parts
        Problem(h=1, b=2, s_q=65, s_k=200, layout="transposed"),
        Problem(h=1, b=1, s_q=200, s_k=63),
        Problem(h=2, q_lengths=(65, 1, 0, 130), k_lengths=(65, 77, 64, 130)),
        # The backward works on them in sections.
        Problem(h=32, b=16, s_q=130, s_k=130),
        Problem(h=32, q_lengths=(130,) * 15 + (131,), k_lengths=(130,) * 15 + (200,)),
    )
    for problem in problems:
        if "forward" in passes:
            checks.run("sanitize", str(problem), lambda: forward.check(problem, device, "cpu"))
        if "backward" in passes:
            checks.run("backward sanitize", str(problem), lambda: backward.check(problem, device, "cpu", True))


def describe_backend(device):
    case = forward.Forward(Problem(h=16, s_q=64, s_k=64), device)
    outputs = case.outputs()
    tensors = [case.inputs[name] for name in INPUTS]
    name, reason = lathe.mla_backend(*tensors, outputs["o"], outputs["lse"], softmax_scale=SCALE)
    print(f"lathe {lathe.version()}, backend {name} ({reason})", flush=True)


def main():
    def names(text):
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--passes", type=names, default=["forward"], help="forward,backward")
    parser.add_argument("--sections", type=names, default=list(SECTIONS), help="of the forward: " + ",".join(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--budget-seconds", type=float, default=540, help="what comes later is left out, and fails")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--out", type=pathlib.Path, default=None)
    parser.add_argument("--verbose", action="store_true", help="a line a case, tracebacks")
    options = parser.parse_args()
    if unknown := (set(options.sections) - set(SECTIONS)) | (set(options.passes) - {"forward", "backward"}):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.out is None:
        options.out = ROOT / f"bench/results/attention_{'_'.join(options.passes)}_check.json"
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    checks = Checks(options)
    describe_backend(options.device)
    if options.sanitize:
        run_sanitized(checks, options.passes)
    else:
        if "forward" in options.passes:
            run_forward(checks, options.sections)
            checks.write()
        if "backward" in options.passes:
            run_backward(checks)
    checks.write()
    print(checks.table())
    print(f"{'FAILED' if checks.failed else 'passed'}, wrote {options.out}")
    return int(checks.failed)


if __name__ == "__main__":
    sys.exit(main())
