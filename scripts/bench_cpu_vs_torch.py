#!/usr/bin/env python3
"""Training speed on the CPU: lathe against transformers + torch, eager and compiled, on the same model and shapes.

One step is forward, backward, clipping and AdamW in fp32 on one micro-batch. torch tries each way of computing the
experts that transformers has and takes part with the fast ones. Rounds of all contestants alternate, so that what else
the machine does meets each of them alike; a round's speed is its tokens over its time, without its first steps.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from transformers.utils import logging

# The model of `make quickstart`, for where its file is not at hand: 1.3 M parameters.
DEFAULT_CONFIG = {
    "model_type": "deepseek_v2",
    "vocab_size": 258,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "kv_lora_rank": 64,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
LEARNING_RATE = 1e-3
EXPERTS = ("eager", "batched_mm", "grouped_mm")


@dataclasses.dataclass
class Shapes:
    sequence: int
    batch: int
    steps: int  # timed, in a round
    skipped: int  # before them

    @property
    def tokens(self):
        return self.sequence * self.batch


def write_text(path, size):
    """Words drawn from a fixed list: as many bytes as asked for."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 9))) for _ in range(2000)]
    text = " ".join(rng.choices(words, k=size // 5))
    path.write_text(text[:size], encoding="ascii")


class TorchTrainer:
    """transformers' model on torch, one instance a contestant."""

    def __init__(self, config, shapes, text, experts, compiled):
        self.name = f"torch.compile, experts {experts}" if compiled else f"torch eager, experts {experts}"
        self.shapes = shapes
        torch.manual_seed(0)
        config = DeepseekV2Config(**config)
        self.model = DeepseekV2ForCausalLM._from_config(
            config, attn_implementation="sdpa", experts_implementation=experts, dtype=torch.float32
        ).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.loss = torch.compile(self.compute_loss) if compiled else self.compute_loss
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        length = shapes.sequence
        self.samples = data[: (len(data) - 1) // length * length].view(-1, length)
        self.targets = data[1 : self.samples.numel() + 1].view(-1, length)
        self.position = 0

    def compute_loss(self, tokens, targets):
        logits = self.model(tokens, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def step(self):
        rows = torch.arange(self.position, self.position + self.shapes.batch) % len(self.samples)
        self.position += self.shapes.batch
        loss = self.loss(self.samples[rows], self.targets[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def round(self):
        """Tokens a second."""
        for _ in range(self.shapes.skipped):
            self.step()
        return self.speed(self.shapes.steps)

    def speed(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return steps * self.shapes.tokens / (time.perf_counter() - start)


class LatheTrainer:
    """`lathe train`, a run of its own for each round."""

    name = "lathe"

    def __init__(self, lathe, config, shapes, text, threads, folder):
        self.lathe, self.shapes, self.threads, self.folder = lathe.resolve(), shapes, threads, folder
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "text.txt").write_bytes(text)
        self.run("tokenize", "--tokenizer", "bytes", "--out", folder / "text", folder / "text.txt")
        (folder / "run.toml").write_text(
            f"""[model]
config = "config.json"
[data]
train = ["text"]
[training]
device = "cpu"
sequence_length = {shapes.sequence}
micro_batch_size = {shapes.batch}
global_batch_size = {shapes.batch}
max_steps = {shapes.skipped + shapes.steps}
[scheduler]
type = "constant"
max_lr = {LEARNING_RATE}
min_lr = {LEARNING_RATE}
[logging]
tensorboard = false
""",
            encoding="utf-8",
        )
        self.rounds = 0

    def run(self, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run([self.lathe, *map(str, arguments)], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"lathe {arguments[0]} failed: {done.stderr.strip()}")

    def round(self):
        """Tokens a second, by the step times in metrics.jsonl."""
        self.rounds += 1
        out = self.folder / f"run-{self.rounds}"
        self.run("train", "--config", self.folder / "run.toml", "--set", f"checkpoint.directory={out}")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        times = [row["step_time"] for row in rows if "step_time" in row][self.shapes.skipped :]
        if len(times) != self.shapes.steps:
            sys.exit(f"lathe wrote {len(times)} timed steps to metrics.jsonl, expected {self.shapes.steps}")
        return len(times) * self.shapes.tokens / sum(times)


def torch_contestants(config, shapes, text, compiled):
    """One for each way of computing the experts that comes near the fastest in a short trial; prints the trials."""
    trials = []
    for experts in EXPERTS:
        try:
            trainer = TorchTrainer(config, shapes, text, experts, compiled)
            trainer.speed(3)  # compiles, and again where shapes change
            speed = trainer.speed(1)
            if speed > max((speed for speed, _ in trials), default=0) / 4:
                speed = max(trainer.speed(shapes.steps // 3 + 1) for _ in range(3))
        except Exception as error:  # noqa: BLE001  whatever torch cannot do, it does not take part with
            print(f"  {'compile' if compiled else 'eager'}, experts {experts}: {str(error).splitlines()[0][:120]}")
            continue
        print(f"  {trainer.name}: {speed:,.0f} tokens/s", flush=True)
        trials.append((speed, trainer))
    fastest = max((speed for speed, _ in trials), default=0)
    return [trainer for speed, trainer in trials if speed > 0.7 * fastest]


def spin_briefly():
    """Starts this program again with the OpenMP setting that lathe gives itself.

    Threads that wait spin for a moment instead of for milliseconds. It costs nothing on an idle machine; beside a busy
    neighbour torch is many times slower without it.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = "3000"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def print_table(speeds):
    """speeds: {contestant: [tokens a second of each round]}, lathe first if it takes part."""
    ours = speeds.get("lathe")
    print(f"\n{'':36} {'best':>10} {'median':>10}   lathe / it: best, median")
    for name, rounds in speeds.items():
        best, median = max(rounds), statistics.median(rounds)
        ratios = f"{max(ours) / best:.2f}x, {statistics.median(ours) / median:.2f}x" if ours else "-"
        print(f"{name:36} {best:10,.0f} {median:10,.0f}   {ratios}")


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, help="the binary, e.g. build/lathe; without it torch runs alone")
    parser.add_argument("--config", type=pathlib.Path, default=root / "configs" / "quickstart" / "config.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of a round")
    parser.add_argument("--skip", type=int, default=5, help="steps before them")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    spin_briefly()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    shapes = Shapes(options.sequence_length, options.micro_batch, options.steps, options.skip)
    found = options.config.is_file()
    config = json.loads(options.config.read_text(encoding="utf-8")) if found else DEFAULT_CONFIG
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_text(folder / "words.txt", 400_000)
        text = (folder / "words.txt").read_bytes()
        print(
            f"{processor()}, {options.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}; "
            f"{options.config if found else 'built-in config'}, {shapes.batch} x {shapes.sequence} tokens a step"
        )
        contestants = []
        if options.lathe:
            contestants.append(LatheTrainer(options.lathe, config, shapes, text, options.threads, folder))
        for compiled in (False, True):
            contestants += torch_contestants(config, shapes, text, compiled)
        speeds = {contestant.name: [] for contestant in contestants}
        for index in range(options.rounds):
            for contestant in contestants:
                speeds[contestant.name].append(contestant.round())
            latest = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in speeds.items())
            print(f"round {index + 1}: {latest}", flush=True)
    print_table(speeds)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
