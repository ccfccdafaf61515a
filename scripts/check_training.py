#!/usr/bin/env python3
"""Checks one thing about training on a device and writes what it found as JSON; exit code 1 on a failure.

  python3 scripts/check_training.py PART --lathe build/lathe --out FILE.json [--device cpu]

  ops           the test program of the CUDA ops (--tests): each test's result
  memcheck      the same under compute-sanitizer, for the tests that --filter names
  repeat        a run twice, and resumed: equal losses to the last digit, equal checkpoints to the last bit
  follow        a run in bf16 stays within 1% of the CPU's losses in fp32 from step 20 on
  gradients     one step's gradients in bf16, tensor by tensor, against the CPU's in fp32
  transformers  loss and logits of a folder that transformers wrote, at DeepSeek-V2-Lite's full width

With --device cpu the device is the CPU too, in fp32: the script itself can be tried anywhere.
"""

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from training_check.report import Report  # noqa: E402

PARTS = ("ops", "memcheck", "repeat", "follow", "gradients", "transformers")


def check(options, report, scratch):
    if options.part in ("ops", "memcheck"):
        from training_check import programs

        body = programs.run_ops if options.part == "ops" else programs.run_memcheck
        report.run(options.part, lambda found: body(options, scratch, found))
    elif options.part == "transformers":
        from training_check import against_transformers

        report.run("transformers", lambda found: against_transformers.compare(options, scratch, found))
    else:
        from training_check import runs

        if options.part == "follow":
            return report.run("follow", lambda found: runs.follow(options, scratch, found))
        for name, model in runs.MODELS.items():
            if options.part == "repeat":
                report.run(f"repeat: {name}", lambda found: runs.repeat(options, fresh(scratch), model, found))
                continue
            for dealt in (True, False):
                how = "experts dealt" if dealt else "experts chosen"
                report.run(f"gradients: {name}, {how}",
                           lambda found: runs.gradients(options, fresh(scratch), model, dealt, found))


def fresh(scratch):
    return pathlib.Path(tempfile.mkdtemp(dir=scratch))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--lathe", type=pathlib.Path, help="the program, for all but ops and memcheck")
    parser.add_argument("--data", type=pathlib.Path, help="token files to train on, PREFIX.bin and PREFIX.idx")
    parser.add_argument("--tests", type=pathlib.Path, help="the program cuda_ops_test, for ops and memcheck")
    parser.add_argument("--filter", default="*", help="memcheck: the tests, as GoogleTest's --gtest_filter")
    parser.add_argument("--steps", type=int, default=200, help="of follow (200)")
    parser.add_argument("--small", action="store_true", help="transformers: a model that a small machine can hold")
    parser.add_argument("--seconds", type=int, default=300, help="that each program may take (300)")
    parser.add_argument("--commit", default="unknown", help="for the file")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    needed = {"ops": ["tests"], "memcheck": ["tests"], "transformers": ["lathe"]}.get(options.part, ["lathe", "data"])
    for name in needed:
        path = getattr(options, name)
        if path is None:
            parser.error(f"{options.part} needs --{name}")
        setattr(options, name, path.resolve())
    report = Report(options)
    with tempfile.TemporaryDirectory() as scratch:
        check(options, report, pathlib.Path(scratch))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
