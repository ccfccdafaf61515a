#!/usr/bin/env python3
"""A picture of attention results: plot_attention.py FILE.json OUT.png [--pass forward]

TFLOP/s over the shapes, one panel a regime: Lathe's operator against every peer's kernel and FA4's operator.
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

STYLES = {  # in the legend's order
    ("lathe", "operator"): ("Lathe, split inputs", "#d62728", 2.6, "-", "o"),
    ("fa4", "kernel"): ("FlashAttention-4", "#1f77b4", 1.4, "-", "s"),
    ("fa3", "kernel"): ("FlashAttention-3", "#2ca02c", 1.4, "-", "^"),
    ("flex", "kernel"): ("cuDNN flex", "#9467bd", 1.4, "-", "D"),
    ("cudnn", "kernel"): ("cuDNN", "#7f7f7f", 1.4, "-", "v"),
    ("sdpa", "kernel"): ("torch SDPA", "#bcbd22", 1.4, "-", "P"),
    ("fa4", "operator"): ("FlashAttention-4, split inputs", "#1f77b4", 1.4, "--", "s"),
}


def shape_of(row):
    return row["batch"], row["seqlen"], row["causal"]


def label(shape):
    batch, seqlen, causal = shape
    length = f"{seqlen // 1024}k" if seqlen % 1024 == 0 else str(seqlen)
    return f"{batch}x{length}" + ("" if causal else " full")


def order(shape):
    """One sequence by length, then batches, then what is not causal."""
    batch, seqlen, causal = shape
    return not causal, batch > 1, seqlen if batch == 1 else batch


def draw(axes, rows, shapes):
    for key, (name, color, width, line, marker) in STYLES.items():
        speeds = {shape_of(row): row["tflops"] for row in rows if (row["impl"], row["scope"]) == key}
        first = True
        # Lines join lengths; a batch or an unmasked shape stands alone.
        for group in ([s for s in shapes if s[0] == 1 and s[2]], *([s] for s in shapes if s[0] > 1 or not s[2])):
            points = [(shapes.index(shape), speeds[shape]) for shape in group if shape in speeds]
            if points:
                axes.plot(*zip(*points), color=color, linewidth=width, linestyle=line, marker=marker,
                          markersize=3 + width, markerfacecolor="white" if line == "--" else color,
                          label=name if first else None, zorder=2 + width)
                first = False
    axes.set_xticks(range(len(shapes)), [label(shape) for shape in shapes], fontsize=10, rotation=45)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("picture")
    parser.add_argument("--pass", dest="pass_name", default="forward")
    options = parser.parse_args()
    with open(options.results, encoding="utf-8") as file:
        report = json.load(file)
    rows = [row for row in report["rows"] if row["pass"] == options.pass_name]
    shapes = sorted({shape_of(row) for row in rows}, key=order)
    regimes = [name for name in ("burst", "sustained") if any(row["regime"] == name for row in rows)]
    if not regimes:
        parser.error(f"{options.results} holds no rows of pass {options.pass_name}")
    figure, panels = plt.subplots(1, len(regimes), figsize=(4.8 * len(regimes), 4.6), sharey=True, squeeze=False)
    for axes, regime in zip(panels[0], regimes):
        draw(axes, [row for row in rows if row["regime"] == regime], shapes)
        axes.set_title({"burst": "burst, before the power limit", "sustained": "sustained"}[regime], fontsize=12)
        axes.set_xlabel("batch x sequence length, causal (full: no mask)", fontsize=11)
    panels[0][0].set_ylabel("TFLOP/s", fontsize=11)
    heads = ", ".join(str(count) for count in sorted({row["heads"] for row in rows}))
    figure.suptitle(f"MLA {options.pass_name.replace('_', ', ')}, {heads} heads of 192 and 128, bf16, "
                    f"{report['device']}", fontsize=12)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=4, fontsize=10.5, columnspacing=1.2, frameon=False)
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    figure.savefig(options.picture, dpi=150)


if __name__ == "__main__":
    main()
