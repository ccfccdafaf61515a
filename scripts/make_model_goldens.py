#!/usr/bin/env python3
"""Writes tests/golden/models/: small DeepSeek-V2 folders by transformers, with what it computes from them.

Run by hand with transformers 5.24 (torch on the CPU, fp32); the output is committed. Each folder holds what
save_pretrained writes and `golden.safetensors`: `tokens` [n] i32, `logits` [n, vocab], `loss` [1], the mean
cross-entropy of the tokens as one sequence, and its gradient for every tensor of the folder, `grad.<name on disk>`.
"""

import argparse
import pathlib
import shutil

import torch
from reference_model import make_config, reference, routing_margin, save_with_clear_routing, yarn
from safetensors.torch import save_file

GROUPS = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}

# name: (number of tokens, fields of the configuration). Between them: each kind of query, rope and choice of experts,
# several numbers of experts, and every option that changes a tensor's name, shape or gradient.
CASES = {
    "greedy": (23, {"n_shared_experts": 2, "num_hidden_layers": 3, "hidden_size": 16, "vocab_size": 50}),
    "q_lora": (
        19,
        {
            "q_lora_rank": 10,
            "first_k_dense_replace": 0,
            "n_routed_experts": 5,
            "num_experts_per_tok": 3,
            "routed_scaling_factor": 1.5,
        },
    ),
    "yarn_groups": (
        83,  # far past original_max_position_embeddings
        {
            "q_lora_rank": 10,
            "rope_parameters": yarn(),
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "routed_scaling_factor": 2.5,
            "max_position_embeddings": 640,
            "hidden_size": 20,
            "moe_intermediate_size": 8,
            **GROUPS,
        },
    ),
    "yarn_no_mscale": (
        31,  # cos and sin carry attention_factor, the softmax scale carries nothing
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 5000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 8,
            },
            "qk_rope_head_dim": 8,
            "max_position_embeddings": 32,
            "moe_intermediate_size": 6,
        },
    ),
    "yarn_all_options": (
        41,
        {
            "rope_parameters": yarn(
                factor=6.0,
                mscale=1.0,
                mscale_all_dim=0.8,
                attention_factor=1.3,
                beta_fast=4.0,
                beta_slow=0.5,
                truncate=False,
            ),
            "qk_rope_head_dim": 12,
            "max_position_embeddings": 96,
            "rms_norm_eps": 1e-3,
            "moe_intermediate_size": 7,
        },
    ),
    "odd_sizes": (
        13,
        {
            "hidden_size": 21,
            "num_attention_heads": 3,
            "vocab_size": 37,
            "intermediate_size": 19,
            "kv_lora_rank": 6,
            "q_lora_rank": 7,
            "qk_nope_head_dim": 10,  # transformers takes no odd one
            "qk_rope_head_dim": 2,
            "v_head_dim": 3,
            "n_routed_experts": 7,
            "num_experts_per_tok": 3,
            "n_shared_experts": 3,
            "moe_intermediate_size": 9,
        },
    ),
    "tied_with_padding": (
        27,
        {
            "tie_word_embeddings": True,
            "pad_token_id": 5,
            "vocab_size": 43,
            "first_k_dense_replace": 0,
            "moe_intermediate_size": 8,
        },
    ),
    "padding": (21, {"pad_token_id": 0, "attention_bias": True, "n_routed_experts": 4, "num_experts_per_tok": 4}),
    "biases_groups": (
        17,
        {"q_lora_rank": 9, "attention_bias": True, "mlp_bias": True, "num_experts_per_tok": 4, **GROUPS},
    ),
    "bf16_shards": (
        29,
        {
            "q_lora_rank": 12,
            "rope_parameters": yarn(original_max_position_embeddings=8),
            "n_routed_experts": 16,
            "num_experts_per_tok": 4,
            "routed_scaling_factor": 4.0,
            "max_position_embeddings": 320,
            "moe_intermediate_size": 8,
            **GROUPS,
        },
    ),
}


def write_case(folder, count, fields, seed):
    shutil.rmtree(folder, ignore_errors=True)
    tokens = save_with_clear_routing(make_config(**fields), folder, count, seed, bf16=folder.name.startswith("bf16"))
    logits, loss, gradients = reference(folder, tokens)
    golden = {"tokens": torch.tensor(tokens, dtype=torch.int32), "logits": logits, "loss": loss}
    golden.update({f"grad.{name}": gradient for name, gradient in gradients.items()})
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / "golden.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"{folder.name}: {len(gradients)} tensors, {size / 1000:.0f} KB, loss {loss.item():.4f}, "
        f"logits {logits.std().item():.2f}, routing margin {routing_margin(folder, tokens):.1e}"
    )
    return size


def main():
    root = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=root, help="folder to write to (tests/golden/models)")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # the order of sums is the same on every machine
    total = 0
    for index, (name, (count, fields)) in enumerate(CASES.items()):
        total += write_case(out / name, count, fields, seed=1000 * index)
    print(f"{len(CASES)} cases, {total / 1000:.0f} KB")


if __name__ == "__main__":
    main()
