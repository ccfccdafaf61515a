#!/usr/bin/env python3
"""Attention, Lathe and its peers interleaved in one process on one card -> one JSON file and two tables.

  LATHE_LIBRARY=build/liblathe.so python3 bench/attention.py --pass forward --out bench/results/attention_forward.json
  ... --device cpu --heads 2 --shapes 1x64,2x96:full --impls lathe,sdpa      the same steps without a GPU

How time is taken stands in timing.py, what a scope holds in attention_candidates.py. Before anything is timed, results
are compared on the first input set; an implementation that agrees with no other is left out and makes the exit code 1.
The file is written after every shape. A peer that is missing or fails costs one line. Exit code 3: the device is lost.
"""

import argparse
import datetime
import faulthandler
import functools
import gc
import json
import math
import pathlib
import platform
import shlex
import sys
import time
import traceback

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import attention_candidates as candidates  # noqa: E402
import attention_tables as tables  # noqa: E402
import attention_truth as truth  # noqa: E402
import peers  # noqa: E402
import timing  # noqa: E402
from peers.common import PASSES, Inputs, Shape  # noqa: E402

SHAPES = "1x2048,1x4096,1x8192,1x16384,1x32768,1x512,8x2048,4x4096,32x512,1x4096:full,1x16384:full"
# Norms of differences over norms, of two implementations that round P and the results to bf16 and sum in other orders.
AGREEMENT = {"forward": 1e-2, "backward": 2e-2, "backward_deterministic": 2e-2}
REGIMES = (("burst", timing.burst, timing.BURSTS), ("sustained", timing.sustained_pass, timing.PASSES))
OF_CUDNN = 1.5  # norms of our gradients' errors against fp64


class DeviceLost(Exception):
    """An error that stays with the process: nothing more can run in it."""


class Bench:
    def __init__(self, options):
        self.options = options
        self.deadline = time.monotonic() + options.budget_seconds
        self.timer = timing.CudaTimer() if options.device == "cuda" else timing.CpuTimer()
        self.stream = self.timer.stream and self.timer.stream.cuda_stream
        self.failed = False
        self.peers = []
        for name in options.impls:
            if name != "lathe":
                peer = self.attempt(f"{name} is left out", lambda: peers.load(name, options.device))
                self.peers += [peer] if peer else []
        self.report = {
            "commit": options.commit,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join(["python3", *sys.argv]),
            **self.machine(),
            "rows": [],
            "agreement": [],
            "errors": [],
        }

    def machine(self):
        if self.options.device == "cpu":
            return {"device": f"CPU, {platform.machine()}", "driver": None, "clock_mhz": None}
        nvml = self.timer.nvml
        properties = torch.cuda.get_device_properties(0)
        return {"device": properties.name, "driver": nvml.driver(), "clock_mhz": nvml.max_clock(),
                "multiprocessors": properties.multi_processor_count, "torch": torch.__version__}

    def attempt(self, what, body):
        """body(), or None and a line."""
        try:
            return body()
        except Exception as error:
            if self.options.verbose:
                traceback.print_exc()
            print(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
            try:
                if self.options.device == "cuda":
                    torch.cuda.synchronize()
            except Exception as lost:
                raise DeviceLost(f"after {what}: {lost}") from error
            return None

    def candidates(self, shape, pass_name, sets):
        deterministic = pass_name == "backward_deterministic"
        makers = []
        if "lathe" in self.options.impls:
            arguments = shape, sets, self.stream
            if pass_name == "forward":
                makers.append(("lathe", functools.partial(candidates.lathe_forward, *arguments)))
            else:
                makers.append(("lathe", functools.partial(candidates.lathe_backward, *arguments, deterministic)))
        for peer in self.peers:
            scopes = [scope for scope in self.options.scopes if scope == "kernel" or peer.name in self.options.operators]
            arguments = peer, shape, sets, scopes
            if pass_name == "forward":
                makers.append((peer.name, functools.partial(candidates.peer_forward, *arguments)))
            else:
                makers.append((peer.name, functools.partial(candidates.peer_backward, *arguments, deterministic)))
        made = []
        for name, maker in makers:
            made += self.attempt(f"{shape} {pass_name} {name} is left out", maker) or []
        return made

    def first_results(self, candidate):
        if self.stream is None:
            results = candidate.calls[0]()
        else:
            self.timer.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.timer.stream):
                results = candidate.calls[0]()
            torch.cuda.synchronize()
        if len(results) == 3:  # a backward's whole gradients
            results = candidates.common.split_gradients(*results)
        return [None if tensor is None else tensor.clone() for tensor in results]

    def measure_errors(self, shape, pass_name, made, results, inputs):
        """Of every implementation's gradients, where the truth is affordable; ours are held against cuDNN's."""
        if pass_name == "forward" or not truth.affordable(shape):
            return
        exact = truth.gradients(shape, inputs)
        found = {c.label: truth.errors(results[c.label], exact) for c in made}
        for candidate in made:
            self.report["errors"].append({"shape": str(shape), "pass": pass_name, "impl": candidate.impl,
                                          "scope": candidate.scope, "errors": found[candidate.label]})
        ours = [found[c.label] for c in made if c.impl == "lathe"]
        cudnn = [found[c.label] for c in made if c.impl == "cudnn"]
        if not ours or not cudnn:
            return
        for name in truth.NAMES:
            ratio = ours[0][name]["norm"] / cudnn[0][name]["norm"]
            if ratio > OF_CUDNN:
                self.failed = True
                print(f"{shape} {pass_name}: the error of {name} is {ratio:.2f} times cuDNN's, allowed {OF_CUDNN}",
                      flush=True)

    def agreeing(self, shape, pass_name, made, inputs):
        """Those of `made` whose results agree with another's; each result is compared, lse where both have one."""
        results = {}
        for candidate in made:
            what = f"{shape} {pass_name} {candidate.label} is left out"
            got = self.attempt(what, lambda candidate=candidate: self.first_results(candidate))
            if got is not None:
                results[candidate.label] = got
        others = any(candidate.impl != "lathe" for candidate in made)
        made = [candidate for candidate in made if candidate.label in results]
        if others and all(candidate.impl == "lathe" for candidate in made):
            self.failed = True
            print(f"{shape} {pass_name}: nobody is left to compare with", flush=True)
        if not self.attempt("errors are left out",
                            lambda: self.measure_errors(shape, pass_name, made, results, inputs) or True):
            self.failed = True
        bound, kept = AGREEMENT[pass_name], []
        for candidate in made:
            errors = {
                other.label: max(difference(*pair) for pair in zip(results[candidate.label], results[other.label]))
                for other in made if other.impl != candidate.impl
            }
            self.report["agreement"].append({
                "shape": str(shape), "pass": pass_name, "impl": candidate.impl, "scope": candidate.scope,
                "bound": bound, "nearest": min(errors.values(), default=None),
                "farthest": max(errors.values(), default=None)})
            if not errors or min(errors.values()) <= bound:
                kept.append(candidate)
            else:
                self.failed = True
                print(f"{shape} {pass_name} {candidate.label} is left out: WRONG RESULTS, norm of the difference over "
                      f"the norm {errors}, allowed {bound}", flush=True)
        return kept

    def time(self, shape, pass_name):
        options = self.options
        generator = torch.Generator(device=options.device).manual_seed(1234)
        sets = [Inputs(shape, options.device, generator) for _ in range(shape.sets(options.rotated_bytes))]
        if self.stream is not None:
            torch.cuda.synchronize()
        started = time.monotonic()
        made = self.agreeing(shape, pass_name, self.candidates(shape, pass_name, sets), sets[0])
        ready = []
        for candidate in made:
            what = f"{shape} {pass_name} {candidate.label} is left out"
            work = self.attempt(what, lambda candidate=candidate: self.timer.work(candidate.calls))
            if work is not None:
                ready.append((candidate, work))
        print(f"{shape} {pass_name}: {len(ready)} implementations, {len(sets)} input sets, prepared in "
              f"{time.monotonic() - started:.1f} s", flush=True)
        if "lathe" in options.impls and all(candidate.impl != "lathe" for candidate, _ in ready):
            self.failed = True
        for regime, measure, rounds in REGIMES:
            if regime not in options.regimes:
                continue
            every = [(work, timing.Samples(candidate.counters)) for candidate, work in ready]
            for number in range(rounds):
                start = number * len(every) // rounds
                for work, samples in every[start:] + every[:start]:
                    self.attempt(regime, lambda: measure(self.timer, work, samples))
            for (candidate, _), (_, samples) in zip(ready, every):
                self.add_row(shape, pass_name, candidate, regime, samples)

    def add_row(self, shape, pass_name, candidate, regime, samples):
        if not samples.times:
            return
        row = {"batch": shape.batch, "seqlen": shape.seqlen, "heads": shape.heads, "causal": shape.causal,
               "pass": pass_name, "scope": candidate.scope, "impl": candidate.impl, "version": candidate.version,
               "regime": regime, **samples.summary()}
        row["tflops"] = shape.flops(pass_name) / row["median_us"] / 1e6
        self.report["rows"].append(row)
        clock = f", {row['clock_mhz']:.0f} MHz" if row["clock_mhz"] else ""
        print(f"  {regime:9} {candidate.label:15} {row['median_us']:10.1f} us {row['tflops']:7.1f} TFLOP/s  "
              f"{row['min_us']:.1f} to {row['max_us']:.1f} us{clock}", flush=True)

    def run(self):
        for pass_name in self.options.passes:
            latest = 0.0
            for shape in self.options.shapes:
                if time.monotonic() + latest > self.deadline:
                    print(f"{shape} {pass_name} is left out: the time is up", flush=True)
                    continue
                started = time.monotonic()
                self.attempt(f"{shape} {pass_name}", lambda: self.time(shape, pass_name))
                latest = time.monotonic() - started
                self.write()
                if self.stream is not None:
                    gc.collect()
                    torch.cuda.empty_cache()

    def write(self):
        path = self.options.out
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.report, indent=1) + "\n")
        temporary.replace(path)


def difference(a, b):
    """|a - b| / |b|; infinite where either is not finite."""
    if a is None or b is None:
        return 0.0
    a, b = a.float(), b.float()
    value = ((a - b).norm() / b.norm().clamp_min(1e-30)).item()
    return value if math.isfinite(value) else math.inf


def parse(arguments):
    def names(text):
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--pass", dest="passes", type=names, default=["forward"], help=",".join(PASSES))
    parser.add_argument("--shapes", type=names, default=names(SHAPES), help="BxS, or BxS:full without a mask")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--impls", type=names, default=["lathe", *peers.NAMES])
    parser.add_argument("--scopes", type=names, default=["kernel", "operator"], help="of the peers")
    parser.add_argument("--operators", type=names, default=list(peers.NAMES), help="peers timed as operators too")
    parser.add_argument("--regimes", type=names, default=["burst", "sustained"])
    parser.add_argument("--rotated-bytes", type=int, default=None, help="of inputs; 200 MB, on a CPU 0")
    parser.add_argument("--budget-seconds", type=float, default=540)
    parser.add_argument("--commit", default="unknown", help="for the file: this machine may have no git history")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/attention.json")
    parser.add_argument("--verbose", action="store_true", help="tracebacks")
    options = parser.parse_args(arguments)
    allowed = {"passes": PASSES, "impls": ("lathe", *peers.NAMES), "scopes": ("kernel", "operator"),
               "operators": peers.NAMES,
               "regimes": ("burst", "sustained")}
    for name, values in allowed.items():
        if unknown := set(getattr(options, name)) - set(values):
            parser.error(f"{', '.join(sorted(unknown))}: allowed are {', '.join(values)}")
    options.shapes = [Shape.parse(text, options.heads) for text in options.shapes]
    if options.rotated_bytes is None:
        options.rotated_bytes = 200_000_000 if options.device == "cuda" else 0
    return options


def main():
    options = parse(sys.argv[1:])
    # A kernel that never ends would keep the tables of what came before from being printed.
    faulthandler.dump_traceback_later(options.budget_seconds + 60, exit=True)
    bench = Bench(options)
    code = 0
    try:
        bench.run()
    except DeviceLost as error:
        print(f"the device is lost: {error}", flush=True)
        code = 3
    bench.write()
    print(tables.render(bench.report["rows"]), flush=True)
    print(f"wrote {options.out}", flush=True)
    return code or int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
