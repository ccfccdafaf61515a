#!/usr/bin/env python3
"""The training step of DeepSeek-V2-Lite cut to 8 layers on one GPU: Lathe and pith-train in turns -> one JSON file.

  python3 bench/training_step.py --lathe lathe-cuda/lathe --pith-train DIR --out bench/results/training_step.json

1 dense and 7 MoE layers, sequences of 2,048, bf16, AdamW, random tokens, the router forced to balance; Lathe also with
the router as it is. Lathe's rows hold what `lathe bench step` says of every class of kernels. DIR is pith-train's work
tree (peers/pith_train.py); without it Lathe runs alone. Needs 141 GB: one H200.
"""

import argparse
import datetime
import json
import pathlib
import shlex
import struct
import subprocess
import sys
import tempfile

from peers.pith_train import SOURCE_MODEL

HERE = pathlib.Path(__file__).resolve().parent
LENGTH = 2048
MODEL = {
    "model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 102400, "hidden_size": 2048,
    "intermediate_size": 10944, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 16,
    "hidden_act": "silu", "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "rope_scaling": None, "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "first_k_dense_replace": 1, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "topk_method": "greedy", "routed_scaling_factor": 1.0,
    "norm_topk_prob": False, "tie_word_embeddings": False, "bos_token_id": 100000, "eos_token_id": 100001,
}
RUN = f"""[model]
config = "config.json"
[data]
train = ["tokens"]
[training]
sequence_length = {LENGTH}
micro_batch_size = 1
global_batch_size = 256
max_steps = 1000
moe_load_balance_type = "global-batch"
moe_load_balance_coef = 1e-3
[scheduler]
max_lr = 1e-6
min_lr = 1e-6
warmup_steps = 0
[checkpoint]
directory = "unused"
"""
INT32 = 4  # Megatron's code


def write_inputs(folder, layers, tokens):
    import numpy

    (folder / "config.json").write_text(json.dumps(MODEL | {"num_hidden_layers": layers}), encoding="utf-8")
    (folder / "run.toml").write_text(RUN, encoding="utf-8")
    numpy.random.default_rng(1).integers(MODEL["vocab_size"], size=tokens, dtype=numpy.int32).tofile(folder / "tokens.bin")
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, INT32, 1, 2)  # one sequence, in one document
    index += struct.pack("<iqqq", tokens, 0, 0, 1)
    (folder / "tokens.idx").write_bytes(index)


def lathe(options, folder, micro_batch, balanced):
    out = folder / "step.json"
    command = [options.lathe, "bench", "step", "--config", folder / "run.toml", "--steps", options.steps - options.warm_up,
               "--warmup", options.warm_up, "--out", out, "--set", f"training.micro_batch_size={micro_batch}",
               "--set", f"training.global_batch_size={options.global_batch}",
               "--set", f"training.force_balanced_router={json.dumps(balanced)}", "--set", "training.device=cuda"]
    done = subprocess.run([str(word) for word in command], stdout=sys.stderr, timeout=options.seconds)
    if done.returncode != 0:
        raise RuntimeError(f"lathe: exit code {done.returncode}")
    return {"impl": "lathe", "balanced_routing": balanced} | json.loads(out.read_text(encoding="utf-8"))


def pith_train(options, micro_batch):
    command = [sys.executable, HERE / "peers/pith_train.py", "--source", options.pith_train, "--micro-batches",
               micro_batch, "--global-batch", options.global_batch, "--steps", options.steps, "--warm-up",
               options.warm_up, "--seconds", options.seconds]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"pith-train: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows):
    lines = ["micro-batch  routing   implementation  tokens/s   peak GB  lathe / it"]
    ours = {row["micro_batch_size"]: row["tokens_per_second"] for row in rows
            if row["impl"] == "lathe" and row["balanced_routing"]}
    for row in rows:
        peak = row.get("peak_memory_bytes") or row.get("peak_reserved_bytes")
        ratio = ours.get(row["micro_batch_size"], float("nan")) / row["tokens_per_second"]
        lines.append(f"{row['micro_batch_size']:11}  {'balanced' if row['balanced_routing'] else 'learned':8}  "
                     f"{row['impl']:14}  {row['tokens_per_second']:8,.0f}  {peak / 1e9:7.1f}  {ratio:.3f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, required=True)
    parser.add_argument("--pith-train", type=pathlib.Path, help="its work tree")
    parser.add_argument("--micro-batches", default="1,4,8", help="sequences, a list with commas (1,4,8)")
    parser.add_argument("--learned", default="4", help="those that Lathe also runs with the router as it is (4)")
    parser.add_argument("--global-batch", type=int, default=256, help="sequences a step (256)")
    parser.add_argument("--layers", type=int, default=MODEL["num_hidden_layers"])
    parser.add_argument("--steps", type=int, default=5, help="of which some warm up (5)")
    parser.add_argument("--warm-up", type=int, default=2, help="2")
    parser.add_argument("--seconds", type=int, default=240, help="that each run may take (240)")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results/training_step.json")
    options = parser.parse_args()
    options.lathe = options.lathe.resolve()
    if options.pith_train is not None and not (options.pith_train / SOURCE_MODEL).is_file():
        parser.error(f"--pith-train: {options.pith_train} holds no {SOURCE_MODEL}")
    learned = [int(word) for word in options.learned.split(",") if word]
    rows, failed = [], 0

    def attempt(run, *arguments):
        nonlocal failed
        try:
            rows.append(run(*arguments))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr, flush=True)
            failed = 1

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_inputs(folder, options.layers, options.global_batch * LENGTH * 2 + 1)
        for micro_batch in map(int, options.micro_batches.split(",")):
            attempt(lathe, options, folder, micro_batch, True)
            if options.pith_train is not None:
                attempt(pith_train, options, micro_batch)
            if micro_batch in learned:
                attempt(lathe, options, folder, micro_batch, False)
            report = {"commit": options.commit, "command": shlex.join(["python3", *sys.argv]), "rows": rows,
                      "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(rows), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
