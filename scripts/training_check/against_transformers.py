"""`transformers`: loss and logits of a folder that transformers wrote, at DeepSeek-V2-Lite's full width."""

import re
import struct
import subprocess
import sys

import torch
from reference_model import load_model, make_config, make_model, random_tokens, yarn
from safetensors.torch import load_file

from training_check.report import Mismatch

# Two layers of DeepSeek-V2-Lite, one of each kind: 1.1e9 parameters.
LITE = {"vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 2,
        "num_attention_heads": 16, "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
        "max_position_embeddings": 163840, "rope_parameters": yarn(original_max_position_embeddings=4096)}
SMALL = {**LITE, "vocab_size": 4000, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
         "kv_lora_rank": 64, "n_routed_experts": 16, "moe_intermediate_size": 64}
SEQUENCES, LENGTH, LOGITS = 4, 1024, 512
LOSS_WITHIN, TIMES = 5e-3, 2.0


def write_tokens(prefix, tokens):
    """One document of int32 tokens in Megatron's files."""
    count = len(tokens)
    prefix.with_suffix(".bin").write_bytes(struct.pack(f"<{count}i", *tokens))
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, 1, 2)
    prefix.with_suffix(".idx").write_bytes(header + struct.pack("<iqqq", count, 0, 0, 1))


def make_folder(options, folder):
    """In bf16, the router's weight too: transformers and Lathe then start from the same numbers in either dtype."""
    config = make_config(**(SMALL if options.small else LITE))
    model = make_model(config, 1, options.device).to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    return config, sum(parameter.numel() for parameter in model.parameters())


def run(options, *arguments):
    command = [options.lathe, *map(str, arguments), "--device", options.device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds)
    if done.returncode != 0:
        raise Mismatch(f"lathe {arguments[0]} exited with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


@torch.no_grad()
def losses_and_logits(folder, tokens, dtype, device):
    """transformers' mean loss over all sequences, and the logits of the first LOGITS tokens, both in fp32."""
    model = load_model(folder, dtype, device)
    inputs = torch.tensor(tokens, device=device)
    loss = 0.0
    for row in range(SEQUENCES):
        part = inputs[row * LENGTH:(row + 1) * LENGTH + 1]
        logits = model(part[None, :-1]).logits[0].float()
        loss += torch.nn.functional.cross_entropy(logits, part[1:]).item() / SEQUENCES
    return loss, model(inputs[None, :LOGITS]).logits[0].float().cpu()


def distance(logits, truth):
    off = (logits - truth).double()
    # A token that bf16 sends to another expert decides the first and the last, and leaves the median alone.
    return {"rms": off.square().mean().sqrt().item(), "median": off.abs().flatten().median().item(),
            "max": off.abs().max().item()}


def compare(options, scratch, found):
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    folder, prefix, written = scratch / "model", scratch / "tokens", scratch / "logits.safetensors"
    config, parameters = make_folder(options, folder)
    tokens = random_tokens(config, SEQUENCES * LENGTH + 1, 2)
    write_tokens(prefix, tokens)

    said = run(options, "eval", "--checkpoint", folder, "--data", prefix, "--samples", SEQUENCES, "--sequence-length",
               LENGTH)
    loss = float(re.search(r"cross-entropy-loss ([\d.]+)", said).group(1))
    run(options, "logits", "--checkpoint", folder, "--tokens", ",".join(map(str, tokens[:LOGITS])), "--out", written)
    logits = load_file(written)["logits"]

    true_loss, truth = losses_and_logits(folder, tokens, torch.float32, options.device)
    half_loss, half = losses_and_logits(folder, tokens, torch.bfloat16, options.device)
    ours, theirs = distance(logits, truth), distance(half, truth)
    found |= {"parameters": parameters, "tokens": SEQUENCES * LENGTH, "logits_of_tokens": LOGITS,
              "loss": loss, "loss_transformers_fp32": true_loss, "loss_transformers_bf16": half_loss,
              "loss_within": LOSS_WITHIN, "logits_rms": truth.square().mean().sqrt().item(),
              "error_lathe": ours, "error_transformers_bf16": theirs, "allowed_times": TIMES}
    print(f"{parameters / 1e9:.2f}e9 parameters, transformers {sys.modules['transformers'].__version__}; loss {loss}, "
          f"transformers {true_loss:.4f}, in bf16 {half_loss:.4f}; error of logits {ours}, "
          f"transformers in bf16 {theirs}")
    if not abs(loss - true_loss) <= LOSS_WITHIN:
        raise Mismatch(f"loss {loss}, transformers {true_loss:.5f}, allowed is a difference of {LOSS_WITHIN}")
    for name, value in ours.items():
        if not value <= TIMES * theirs[name]:
            raise Mismatch(f"logits: {name} error {value:.3e}, transformers in bf16 {theirs[name]:.3e}")
