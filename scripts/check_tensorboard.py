"""Reads a run's event files with tensorboard and compares them with its metrics.jsonl.

    python scripts/check_tensorboard.py RUN_DIR TAG[=KEY]...

TAG is a scalar's name in TensorBoard, KEY its name in metrics.jsonl; without KEY it is TAG's last part. Every row of
metrics.jsonl that has the key must be there, step by step, with the value rounded to a float, and nothing else.
Exits with 1 and one line a difference.
"""

import argparse
import json
import pathlib
import sys

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def logged_scalars(run_dir, key):
    with open(run_dir / "metrics.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def differences(logged, shown):
    """Lines that say where two lists of (step, value) part."""
    logged_steps = [step for step, _ in logged]
    shown_steps = [step for step, _ in shown]
    if logged_steps != shown_steps:
        missing = sorted(set(logged_steps) - set(shown_steps))[:20]
        extra = sorted(set(shown_steps) - set(logged_steps))[:20]
        return [f"{len(logged_steps)} steps logged, {len(shown_steps)} shown; missing {missing}, extra {extra}"]
    return [
        f"step {step}: logged {value!r}, shown {seen!r}"
        for (step, value), (_, seen) in zip(logged, shown)
        if not numpy.array_equal(numpy.float32(value), numpy.float32(seen), equal_nan=True)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=pathlib.Path)
    parser.add_argument("tags", nargs="+", metavar="TAG[=KEY]")
    arguments = parser.parse_args()

    accumulator = EventAccumulator(str(arguments.run_dir), size_guidance={"scalars": 0})
    accumulator.Reload()
    known = accumulator.Tags()["scalars"]
    failed = False
    for item in arguments.tags:
        tag, _, key = item.partition("=")
        logged = logged_scalars(arguments.run_dir, key or tag.rsplit("/", 1)[-1])
        shown = [(event.step, event.value) for event in accumulator.Scalars(tag)] if tag in known else []
        lines = differences(logged, shown)
        if tag not in known:
            lines = [f"no such tag; there are {', '.join(known) or 'none'}"]
        if not lines and not logged:
            lines = ["no row of metrics.jsonl has this value"]
        for line in lines[:20]:
            print(f"{tag}: {line}")
        if not lines:
            print(f"{tag}: {len(shown)} steps, {shown[0][0]} to {shown[-1][0]}, as logged")
        failed = failed or bool(lines)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
