#!/usr/bin/env python3
"""Tables of attention results, as Markdown: attention_tables.py FILE.json"""

import collections
import json
import sys

SEED_LENGTHS = (2048, 4096, 8192, 16384, 32768)


def index(rows):
    """(shape, pass, regime) -> {(impl, scope): row}, shapes as (batch, seqlen, causal), in the file's order."""
    found = collections.defaultdict(dict)
    for row in rows:
        shape = row["batch"], row["seqlen"], row["causal"]
        found[shape, row["pass"], row["regime"]][row["impl"], row["scope"]] = row
    return found


def markdown(head, lines):
    lines = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speed(row):
    return f"{row['median_us'] / 1e3:.3f} ms, {row['tflops']:.0f}" if row else "-"


def ratio(peer, ours):
    return f"{peer['median_us'] / ours['median_us']:.2f}x" if peer and ours else "-"


def seed_table(found, pass_name, regime):
    """One sequence, causal: Lathe's operator against FlashAttention-4, as operator and as kernel."""
    lines = []
    for length in SEED_LENGTHS:
        rows = found.get(((1, length, True), pass_name, regime))
        if not rows:
            continue
        ours, operator, kernel = (rows.get(key) for key in (("lathe", "operator"), ("fa4", "operator"),
                                                            ("fa4", "kernel")))
        lines.append([str(length), speed(ours), speed(operator), speed(kernel), ratio(operator, ours),
                      ratio(kernel, ours)])
    head = ["s", "lathe operator", "FA4 operator", "FA4 kernel", "over the operator", "over the kernel"]
    return markdown(head, lines) if lines else ""


def best_kernel(rows):
    kernels = [row for (impl, scope), row in rows.items() if impl != "lathe" and scope == "kernel"]
    return min(kernels, key=lambda row: row["median_us"], default=None)


def target_table(found, pass_name):
    """Every shape: Lathe's operator against FA4's operator and against the best kernel of any peer."""
    lines = []
    shapes = dict.fromkeys(shape for shape, name, _ in found if name == pass_name)
    for shape in shapes:
        batch, seqlen, causal = shape
        burst = found.get((shape, pass_name, "burst"), {})
        sustained = found.get((shape, pass_name, "sustained"), {})
        line = [f"{batch}x{seqlen}" + ("" if causal else " full")]
        ours = sustained.get(("lathe", "operator"))
        line += [speed(ours), ratio(sustained.get(("fa4", "operator")), ours)]
        for rows in (burst, sustained):
            best, ours = best_kernel(rows), rows.get(("lathe", "operator"))
            line.append(f"{ratio(best, ours)} {best['impl']}" if best and ours else "-")
        lines.append(line)
    head = ["b x s", "lathe operator, sustained", "over FA4 operator, sustained", "over best kernel, burst",
            "over best kernel, sustained"]
    return markdown(head, lines)


def render(rows):
    found = index(rows)
    parts = []
    for pass_name in dict.fromkeys(row["pass"] for row in rows):
        for regime in dict.fromkeys(row["regime"] for row in rows):
            if table := seed_table(found, pass_name, regime):
                parts.append(f"\n{pass_name}, {regime}: ms, TFLOP/s\n\n{table}")
        parts.append(f"\n{pass_name}, all shapes: how many times as fast\n\n{target_table(found, pass_name)}")
    return "\n".join(parts)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(render(json.load(file)["rows"]))
