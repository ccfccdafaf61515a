"""`repeat`, `follow` and `gradients`: short runs of `lathe train`, on the device and on the CPU in fp32."""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess

import torch
from safetensors.torch import load_file

from training_check.report import Mismatch

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "configs/quickstart"
TIMING = ("step_time", "tokens_per_second", "peak_memory_bytes")  # what equal runs may differ in
# Changes of the quickstart's model that give attention DeepSeek-V2's head sizes, so that Hopper's kernels run it.
V2_HEADS = {"hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 256, "intermediate_size": 1024,
            "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 2, "moe_intermediate_size": 256}
MODELS = {"quickstart": {}, "DeepSeek-V2's heads": V2_HEADS}

# Steps 1 to 19 of a run may differ by more: the first updates of AdamW follow the sign of each gradient. The learning
# rate is a third of the quickstart's: at that one training itself parts runs (two in fp32 whose initial weights differ
# by 0.5% are 1.5% apart at step 200), at this one transformers in bf16 with fp32 masters stays within 0.3% of fp32.
FOLLOW_FROM, FOLLOW_WITHIN, FOLLOW_RATE = 20, 0.01, 1e-3
# Errors of a gradient in units of 2^-8, bf16's distance between 1 and the number below. A gradient has passed some ten
# roundings a layer, each of at most half a unit and random in sign: transformers in bf16 is up to 3.4 units from fp32
# on these models where both give a token the same experts. Where scores choose them, bf16 moves a few tokens from one
# expert to another: a layer's experts are then measured together, and transformers is up to 5.2 units away. (Its
# embedding apart, which adds in bf16 what Lathe adds in fp32.)
UNIT = 2.0**-8
DEALT_UNITS, CHOSEN_UNITS = 8, 16


class Run:
    def __init__(self, folder, said):
        self.folder = folder
        self.device = said.splitlines()[0].split(" | ", 2)[2]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.rows = [row for row in rows if "step_time" in row]
        self.losses = [row["cross_entropy_loss"] for row in self.rows]
        self.tokens_per_second = self.rows[-1]["tokens_per_second"]
        self.checkpoint = sorted(folder.glob("step-*"))[-1]

    def untimed_rows(self):
        return [{key: value for key, value in row.items() if key not in TIMING} for row in self.rows]

    def hashes(self):
        files = sorted(self.checkpoint.glob("*.safetensors"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def train(options, scratch, name, device, model=None, resume=False, **settings):
    """A run of the quickstart's model, with `model` changed in its configuration. Keys: `training__seed=1`."""
    folder = scratch / re.sub(r"\W+", "-", name)
    config = json.loads((QUICKSTART / "config.json").read_text(encoding="utf-8")) | (model or {})
    path = scratch / "config.json"  # one for all runs of a check: a resumed run must name the same
    path.write_text(json.dumps(config), encoding="utf-8")
    gpu = device == "cuda"
    values = {"model.config": str(path), "data.train": [str(options.data)], "data.validation": [],
              "training.validation_interval": 0, "training.device": device, "training.dtype": "bf16" if gpu else "fp32",
              "checkpoint.directory": str(folder), "checkpoint.interval": 0, "logging.tensorboard": False}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    command = [options.lathe, "train", "--config", QUICKSTART / "run.toml"]
    for key, value in values.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    if resume:
        command.append("--resume")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=options.seconds)
    if done.returncode != 0:
        raise Mismatch(f"{name}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    run = Run(folder, done.stdout)
    expected = "bf16 with fp32 masters" if gpu else "fp32"
    if not run.device.endswith(f" | {expected}"):
        raise Mismatch(f"{name} ran on {run.device}, expected {expected}")
    return run


def repeat(options, scratch, model, found):
    """The same run twice, and a third time from the second's checkpoint of step 2 on: equal rows to the last digit,
    equal files to the last bit."""
    settings = {"training__max_steps": 3, "training__global_batch_size": 16, "scheduler__warmup_steps": 1,
                "checkpoint__interval": 2}
    first, second = (train(options, scratch, f"repeat {time}", options.device, model, **settings) for time in (1, 2))
    shutil.copytree(second.folder, scratch / "repeat-3", ignore=shutil.ignore_patterns(second.checkpoint.name))
    third = train(options, scratch, "repeat 3", options.device, model, resume=True, **settings)
    hashes = first.hashes()
    found |= {"device": first.device, "losses": first.losses, "losses_again": second.losses, "sha256": hashes}
    if len(set(first.losses)) != 3 or "model.safetensors" not in hashes:
        raise Mismatch("the run changed nothing")
    for again, what in ((second, "the second run"), (third, "the resumed run")):
        if first.untimed_rows() != again.untimed_rows():
            raise Mismatch(f"{what}: the rows of metrics.jsonl differ")
        files = again.hashes()
        if differing := sorted(name for name in hashes.keys() | files.keys() if hashes.get(name) != files.get(name)):
            raise Mismatch(f"{what}: differing files: {', '.join(differing)}")


def follow(options, scratch, found):
    steps = options.steps
    ours, cpu = (train(options, scratch, f"follow {name}", device, training__max_steps=steps,
                       scheduler__max_lr=FOLLOW_RATE)
                 for name, device in (("device", options.device), ("cpu", "cpu")))
    off = [abs(a - b) / b for a, b in zip(ours.losses, cpu.losses, strict=True)]
    worst = max(range(FOLLOW_FROM - 1, len(off)), key=lambda step: off[step], default=0)
    found |= {"device": ours.device, "steps": steps, "max_lr": FOLLOW_RATE, "within": FOLLOW_WITHIN,
              "from_step": FOLLOW_FROM, "worst": off[worst], "worst_step": worst + 1,
              "tokens_per_second": ours.tokens_per_second, "tokens_per_second_cpu": cpu.tokens_per_second,
              "losses": ours.losses, "losses_cpu": cpu.losses}
    if len(off) < FOLLOW_FROM or not cpu.losses[-1] < 0.8 * cpu.losses[0]:
        raise Mismatch(f"{len(off)} steps from {cpu.losses[0]:.4f} to {cpu.losses[-1]:.4f} are no training to follow")
    if not all(value <= FOLLOW_WITHIN for value in off[FOLLOW_FROM - 1:]):  # NaN fails too
        raise Mismatch(f"step {worst + 1}: {ours.losses[worst]:.4f}, on the CPU {cpu.losses[worst]:.4f}; allowed is "
                       f"{FOLLOW_WITHIN:.0%}")


def gradients_of(run):
    """{name: gradient in fp64}: after one step from zeros with beta1 = 0 the first moment is the gradient."""
    moments = load_file(run.checkpoint / "optimizer-00001.safetensors")
    return {name[2:]: moment.double() for name, moment in moments.items() if name.startswith("m.")}


def together(gradients):
    """The experts of a layer as one tensor each for gate, up and down."""
    joined = {}
    for name, gradient in gradients.items():
        joined.setdefault(re.sub(r"\.experts\.\d+\.", ".experts.*.", name), []).append(gradient)
    return {name: torch.stack(parts) if len(parts) > 1 else parts[0] for name, parts in joined.items()}


def difference(ours, truth):
    norm, off = truth.norm().item(), (ours - truth).norm().item()
    cosine = (ours * truth).sum().item() / (ours.norm().item() * norm) if norm > 0 and ours.norm() > 0 else None
    relative = off / norm if norm > 0 else 0.0 if off == 0 else 1e30
    return {"norm": norm, "relative": relative, "units": round(relative / UNIT, 3), "cosine": cosine}


def gradients(options, scratch, model, dealt, found):
    """One step's gradients. `dealt`: experts are dealt in turn, so that both runs give each token the same ones."""
    settings = {"training__max_steps": 1, "training__gradient_clip": 0, "optimizer__beta1": 0,
                "training__force_balanced_router": dealt}
    runs = [train(options, scratch, f"gradients {name}", device, model, **settings)
            for name, device in (("device", options.device), ("cpu", "cpu"))]
    ours, truth = (gradients_of(run) if dealt else together(gradients_of(run)) for run in runs)
    units = DEALT_UNITS if dealt else CHOSEN_UNITS
    if ours.keys() != truth.keys() or not truth:
        raise Mismatch(f"tensors differ: {sorted(ours.keys() ^ truth.keys())[:3]}")
    tensors = {name: difference(ours[name], truth[name]) for name in truth}
    worst = max(tensors, key=lambda name: tensors[name]["relative"])
    found |= {"device": runs[0].device, "allowed_units_of_2^-8": units, "worst": {"tensor": worst, **tensors[worst]},
              "losses": [run.losses[0] for run in runs], "tensors": tensors}
    silent = [name for name, figures in tensors.items() if figures["norm"] == 0]
    if silent and dealt:
        raise Mismatch(f"no gradient of {silent[0]}")
    wrong = [name for name, figures in tensors.items() if not figures["relative"] <= units * UNIT]
    if wrong:
        raise Mismatch(f"{len(wrong)} of {len(tensors)} tensors beyond {units} x 2^-8, {worst} by "
                       f"{tensors[worst]['units']}")
