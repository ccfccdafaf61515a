#!/usr/bin/env python3
"""Compares lathe with transformers' DeepseekV2ForCausalLM on random small models, both in fp32.

For each case a random configuration with random weights is saved by save_pretrained. `lathe logits` and
`lathe gradients` must agree with transformers on logits, loss and every parameter's gradient: for each tensor
    max |lathe - transformers| <= 1e-4 * max |transformers| + 1e-5
(transformers in fp64 is up to a few 1e-5 of the largest element away from itself in fp32).
`lathe export` must give a folder that transformers loads as it is with the same weights, and `lathe import` of that
folder must give back equal tensors and, to the bit, equal logits. Prints a line a case; exits 1 if one fails.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from reference_model import logits_of, make_config, read_json, read_tensors, reference, save_with_clear_routing, yarn
from safetensors.torch import load_file

RELATIVE, ABSOLUTE = 1e-4, 1e-5


class Mismatch(Exception):
    """What differs, in one line."""


def random_rope(rng):
    if rng.random() < 0.4:
        return {"rope_type": "default", "rope_theta": rng.choice([10000.0, 500.0, 1e6])}
    original = rng.choice([4, 8, 16, 64])
    factor = rng.choice([1.0, 2.0, 4.5, 40.0])
    rope = yarn(original_max_position_embeddings=original, factor=factor)
    mscale = rng.choice([None, (0.707, 0.707), (1.0, 1.0), (1.0, 0.5)])
    if mscale is None:
        del rope["mscale"], rope["mscale_all_dim"]
    else:
        rope["mscale"], rope["mscale_all_dim"] = mscale
    if rng.random() < 0.3:
        rope.update(beta_fast=rng.choice([8.0, 20.0]), beta_slow=rng.choice([0.5, 2.0]))
    if rng.random() < 0.3:
        rope["truncate"] = False
    if rng.random() < 0.2:
        rope["attention_factor"] = rng.choice([0.9, 1.2])
    return rope


def random_experts(rng):
    if rng.random() < 0.5:
        count = rng.choice([1, 3, 4, 5, 8, 13, 32])
        return {"n_routed_experts": count, "num_experts_per_tok": rng.randint(1, min(count, 6))}
    groups, size = rng.choice([(2, 3), (3, 2), (4, 2), (4, 5), (8, 1), (8, 4)])
    kept = rng.randint(1, groups)
    return {
        "topk_method": "group_limited_greedy",
        "n_group": groups,
        "topk_group": kept,
        "n_routed_experts": groups * size,
        "num_experts_per_tok": rng.randint(1, min(kept * size, 6)),
    }


def random_fields(rng):
    heads = rng.choice([1, 2, 3, 4])
    layers = rng.choice([1, 2, 3])
    rope = random_rope(rng)
    original = rope.get("original_max_position_embeddings", 256)
    vocab = rng.choice([17, 61, 128, 259])
    return {
        "vocab_size": vocab,
        "hidden_size": heads * rng.choice([4, 7, 12, 16]),
        "intermediate_size": rng.choice([5, 16, 33]),
        "moe_intermediate_size": rng.choice([3, 8, 17]),
        "num_hidden_layers": layers,
        "first_k_dense_replace": rng.randint(0, layers),
        "num_attention_heads": heads,
        "q_lora_rank": rng.choice([None, 5, 12]),
        "kv_lora_rank": rng.choice([2, 8, 18]),
        "qk_nope_head_dim": rng.choice([2, 6, 16]),
        "qk_rope_head_dim": rng.choice([2, 4, 16]),
        "v_head_dim": rng.choice([1, 5, 16]),
        "n_shared_experts": rng.choice([1, 2, 3]),
        "routed_scaling_factor": rng.choice([1.0, 1.0, 0.5, 2.5]),
        "tie_word_embeddings": rng.random() < 0.3,
        "attention_bias": rng.random() < 0.3,
        "mlp_bias": rng.random() < 0.3,
        "pad_token_id": rng.choice([None, None, 0, vocab - 1]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "max_position_embeddings": int(original * rope.get("factor", 1.0)),
        "rope_parameters": rope,
        **random_experts(rng),
    }


def respell_as_released(folder):
    """config.json as DeepSeek's own releases write it."""
    path = folder / "config.json"
    config = read_json(path)
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    for field in ("head_dim", "qk_head_dim", "output_router_logits"):
        config.pop(field, None)
    config.update(aux_loss_alpha=0.001, seq_aux=True, scoring_func="softmax", moe_layer_freq=1, ep_size=1)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def run(lathe, *arguments):
    done = subprocess.run([lathe, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Mismatch(f"lathe {arguments[0]} exited with {done.returncode}: {said[-1] if said else '(no message)'}")


def distance(name, ours, theirs):
    """The largest difference over the largest element; throws where it is above the bound."""
    if ours.shape != theirs.shape:
        raise Mismatch(f"{name} is {list(ours.shape)}, expected {list(theirs.shape)}")
    if ours.dtype != torch.float32:
        raise Mismatch(f"{name} is {ours.dtype}, expected torch.float32")
    difference = (ours - theirs).abs().max().item()
    scale = theirs.abs().max().item()
    if not difference <= RELATIVE * scale + ABSOLUTE:  # NaN fails too
        raise Mismatch(f"{name} differs by {difference:.2e}, its largest element is {scale:.2e}")
    return difference / scale if scale > 0 else 0.0


def require_same_names(what, ours, theirs):
    if missing := sorted(theirs.keys() - ours.keys()):
        raise Mismatch(f"{what}: {len(missing)} tensors missing, {missing[0]} first")
    if unexpected := sorted(ours.keys() - theirs.keys()):
        raise Mismatch(f"{what}: {len(unexpected)} unexpected tensors, {unexpected[0]} first")


def require_same_tensors(what, ours, theirs):
    """The same values to the bit; a wider dtype may hold them."""
    require_same_names(what, ours, theirs)
    for name, tensor in theirs.items():
        if not torch.equal(ours[name].float(), tensor.float()):
            raise Mismatch(f"{what}: {name} changed")


def compare_results(lathe, folder, tokens, scratch):
    text = ",".join(map(str, tokens))
    logits, loss, gradients = reference(folder, tokens)
    run(lathe, "logits", "--checkpoint", folder, "--tokens", text, "--out", scratch / "logits.safetensors")
    run(lathe, "gradients", "--checkpoint", folder, "--tokens", text, "--out", scratch / "gradients.safetensors")
    of_logits = distance("logits", load_file(scratch / "logits.safetensors")["logits"], logits)
    ours = load_file(scratch / "gradients.safetensors")
    of_loss = distance("loss", ours.pop("loss"), loss)
    require_same_names("gradients", ours, gradients)
    worst = max(distance(f"gradient of {name}", ours[name], gradients[name]) for name in gradients)
    return f"logits {of_logits:.1e} | loss {of_loss:.1e} | {len(gradients)} gradients {worst:.1e}"


def compare_export(lathe, folder, tokens, scratch):
    exported, imported = scratch / "exported", scratch / "imported"
    run(lathe, "export", "--checkpoint", folder, "--out", exported)
    require_same_tensors("export", read_tensors(exported), read_tensors(folder))
    distance("logits of the exported folder", logits_of(exported, tokens), logits_of(folder, tokens))

    run(lathe, "import", "--from", exported, "--out", imported)
    weights = next(imported.rglob("model*.safetensors"), None)
    if weights is None:
        raise Mismatch("import wrote no weights")
    require_same_tensors("import of the export", read_tensors(weights.parent), read_tensors(exported))

    text = ",".join(map(str, tokens))
    run(lathe, "logits", "--checkpoint", imported, "--tokens", text, "--out", scratch / "again.safetensors")
    before, after = (load_file(scratch / f"{name}.safetensors")["logits"] for name in ("logits", "again"))
    if not torch.equal(before, after):
        raise Mismatch("logits of the imported folder are not bit-equal")


def describe(fields, count, bf16, released):
    rope = fields["rope_parameters"]
    words = [
        f"{fields['num_hidden_layers']} layers ({fields['first_k_dense_replace']} dense)",
        f"hidden {fields['hidden_size']}",
        f"q_lora {fields['q_lora_rank']}",
        rope["rope_type"] + (f" x{rope['factor']:g}" if "factor" in rope else ""),
        f"top {fields['num_experts_per_tok']} of {fields['n_routed_experts']}",
    ]
    words += [f"{fields['topk_group']} of {fields['n_group']} groups"] if "n_group" in fields else []
    words += [name for name in ("tie_word_embeddings", "attention_bias", "mlp_bias") if fields[name]]
    words += ["bf16 shards"] if bf16 else []
    words += ["released spelling"] if released else []
    return ", ".join([*words, f"{count} tokens"])


def run_case(lathe, seed, index):
    """(passed, line to print)"""
    rng = random.Random(seed * 1000003 + index)
    fields = random_fields(rng)
    count = rng.choice([2, 3, 9, 17, 33, 64])
    bf16, released = rng.random() < 0.25, rng.random() < 0.4
    name = f"case {index}: {describe(fields, count, bf16, released)}"
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "model"
        try:
            tokens = save_with_clear_routing(make_config(**fields), folder, count, rng.randrange(10**9), bf16)
            if released:
                respell_as_released(folder)
            result = compare_results(lathe, folder, tokens, scratch)
            compare_export(lathe, folder, tokens, scratch)
        except (Mismatch, subprocess.TimeoutExpired, OSError) as error:
            return False, f"FAILED {name} | {error}"
    return True, f"passed {name} | {result}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, required=True, help="the binary, e.g. build/lathe")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one case alone, by its number")
    options = parser.parse_args()
    lathe = options.lathe.resolve()
    if not lathe.is_file():
        parser.error(f"--lathe: no file {options.lathe}")
    indices = range(options.cases) if options.only is None else [options.only]
    passed = failed = 0
    for index in indices:
        good, line = run_case(lathe, options.seed, index)
        passed, failed = passed + good, failed + (not good)
        print(line, flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
