#!/usr/bin/env python3
"""pith-train (github.com/mlc-ai/pith-train) on one GPU: the slice of DeepSeek-V2-Lite whose step Lathe is measured by.

  python3 bench/peers/pith_train.py --source DIR [--micro-batches 1,4,8] [--global-batch 256] [--steps 4]

1 dense and 7 MoE layers, sequences of 2,048, bf16, AdamW, its benchmark mode (balanced routing). Prints a JSON object
for each micro-batch size. DIR is its work tree; FlashAttention-4 comes from PYTHONPATH. What it imports and does not
use here (wandb, DeepGEMM for fp8, flash-linear-attention for another model) is left out, and its weights are drawn on
the GPU, which takes a second instead of minutes. Its own clock stops before the optimizer's kernels end, so steps are
timed from outside, device idle before and after.
"""

import argparse
import importlib.machinery
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import types

LAYERS, LENGTH, VOCABULARY = 8, 2048, 102400
SOURCE_MODEL = "benchmarks/pretraining/deepseek-v2-lite/model.json"  # its configuration of the whole model
LEFT_OUT = ("wandb", "wandb.sdk", "wandb.sdk.wandb_run", "deep_gemm", "fla", "fla.ops", "fla.ops.common",
            "fla.ops.common.chunk_o", "fla.ops.gated_delta_rule", "fla.ops.gated_delta_rule.chunk")


class LeftOut:
    def __init__(self, *_, **__):
        raise RuntimeError("pith-train calls a package that this benchmark leaves out")


def left_out(attribute):
    if attribute.startswith("__"):  # what Python asks every module for
        raise AttributeError(attribute)
    return LeftOut


def leave_out(names):
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        module.__getattr__ = left_out
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def write_inputs(folder, source, tokens):
    """Its configuration cut to LAYERS, and random tokens as its data set reads them."""
    import numpy

    model = json.loads((source / SOURCE_MODEL).read_text(encoding="utf-8")) | {"num_hidden_layers": LAYERS}
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    (folder / "tokens").mkdir()
    with open(folder / "tokens/random.bin", "wb") as file:
        numpy.save(file, numpy.random.default_rng(1).integers(VOCABULARY, size=tokens, dtype=numpy.int32))


def configuration(options, folder):
    from pithtrain.modules.training import make_adamw_optimizer, make_constant_scheduler
    from pithtrain.tasks.pretrain_lm import PretrainLMCfg

    config = PretrainLMCfg()
    training = config.training
    training.model, training.dataset = folder / "model.json", folder / "tokens"
    training.optimizer, training.scheduler, training.lr = make_adamw_optimizer, make_constant_scheduler, 1e-6
    training.sequence_length, training.max_steps = LENGTH, options.steps
    training.micro_batch_size, training.global_batch_size = options.child, options.global_batch
    training.moe_load_balance_type, training.moe_load_balance_coef = "global-batch", 1e-3
    training.benchmark = True
    return config


def run_child(options):
    """In a process of its own: trains, and prints the row as the last line."""
    leave_out(LEFT_OUT)
    sys.path.insert(0, str(options.source))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="bench")
    import torch
    from pithtrain.modules import training
    from pithtrain.tasks import pretrain_lm

    seconds = []
    train_step, setup_model = pretrain_lm.train_step, training.setup_model

    def setup_on_device(*arguments):
        with torch.device("cuda"):
            setup_model(*arguments)
        torch.cuda.empty_cache()

    def timed_step(config):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        train_step(config)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)

    pretrain_lm.train_step, training.setup_model = timed_step, setup_on_device
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_inputs(folder, options.source, options.steps * options.global_batch * LENGTH + 1)
        pretrain_lm.launch(configuration(options, folder))
    step = statistics.median(seconds[options.warm_up:])
    project = tomllib.loads((options.source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    row = {"impl": "pith-train", "version": project["version"], "device": torch.cuda.get_device_name(0),
           "torch": torch.__version__, "layers": LAYERS, "sequence_length": LENGTH,
           "micro_batch_size": options.child, "global_batch_size": options.global_batch, "balanced_routing": True,
           "step_seconds": seconds, "tokens_per_second": options.global_batch * LENGTH / step,
           # Of the last step: what tensors held, and what torch took from the device for them.
           "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
           "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="pith-train's work tree")
    parser.add_argument("--micro-batches", default="1,4,8", help="sequences, a list with commas (1,4,8)")
    parser.add_argument("--global-batch", type=int, default=256, help="sequences a step (256)")
    parser.add_argument("--steps", type=int, default=4, help="4")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that do not count: kernels are compiled (2)")
    parser.add_argument("--seconds", type=int, default=240, help="that each size may take (240)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)  # its micro-batch size
    options = parser.parse_args()
    options.source = options.source.resolve()
    if not (options.source / SOURCE_MODEL).is_file():
        parser.error(f"--source: {options.source} holds no {SOURCE_MODEL}")
    if options.steps <= options.warm_up:
        parser.error(f"--steps {options.steps}: more than --warm-up {options.warm_up} are needed")
    if options.child is not None:
        return run_child(options)
    failed = 0
    for micro_batch in map(int, options.micro_batches.split(",")):
        # -P: what lies beside this file must not stand in for packages of the same names.
        command = [sys.executable, "-P", __file__, *sys.argv[1:], "--child", str(micro_batch)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=options.seconds)
        except subprocess.TimeoutExpired:
            print(f"micro-batch {micro_batch}: not done after {options.seconds} s", file=sys.stderr, flush=True)
            failed = 1
            continue
        *log, last = done.stdout.splitlines() or [""]
        print("\n".join(line for line in log if "| step " in line), file=sys.stderr, flush=True)
        print(last if done.returncode == 0 else f"micro-batch {micro_batch}: exit code {done.returncode}: {last}",
              file=sys.stdout if done.returncode == 0 else sys.stderr, flush=True)
        failed |= done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
