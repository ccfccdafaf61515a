"""What the tests of the program share: a folder with a small model, a corpus and a run.toml, and a way to run it."""

import hashlib
import json
import os
import pathlib
import random
import struct
import subprocess
import tempfile

CONFIG = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "topk_method": "greedy",
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": None,
}

RUN = {
    "model": {"config": "config.json"},
    "data": {"train": ["corpus"], "validation": ["valid"]},
    "training": {
        "sequence_length": 32,
        "micro_batch_size": 2,
        "global_batch_size": 4,
        "max_steps": 8,
        "moe_load_balance_coef": 0.01,
        "validation_interval": 4,
        "validation_samples": 8,
    },
    "scheduler": {"max_lr": 0.01, "min_lr": 0.001, "warmup_steps": 2},
    "checkpoint": {"directory": "run", "interval": 4},
}


def toml(tables):
    """A dict of dicts as run.toml; JSON's spelling of these values is TOML's too."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def tokens_of_text(count, seed):
    """Word-like text as byte tokens, documents ended by 257: something a small model learns quickly."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("aeiounstr") for _ in range(rng.randint(2, 6))) for _ in range(40)]
    tokens = []
    while len(tokens) < count:
        for _ in range(rng.randint(10, 60)):
            tokens += list((rng.choice(words) + " ").encode())
        tokens.append(257)
    return tokens[:count]


def index_bytes(sizes, documents=None, code=8, width=2, version=1, magic=b"MMIDIDX\0\0", counts=None, pointers=None):
    """An .idx file; the arguments are the places where a test puts something wrong."""
    documents = list(range(len(sizes) + 1)) if documents is None else documents
    if pointers is None:
        pointers = [sum(sizes[:i]) * width for i in range(len(sizes))]
    counts = (len(sizes), len(documents)) if counts is None else counts
    return (
        magic
        + struct.pack("<QB", version, code)
        + struct.pack("<QQ", *counts)
        + struct.pack(f"<{len(sizes)}i", *sizes)
        + struct.pack(f"<{len(pointers)}q", *pointers)
        + struct.pack(f"<{len(documents)}q", *documents)
    )


def write_tokens(prefix, tokens):
    ends = [i + 1 for i, token in enumerate(tokens) if token == 257]
    if not ends or ends[-1] != len(tokens):
        ends.append(len(tokens))
    sizes = [end - begin for begin, end in zip([0] + ends, ends)]
    pathlib.Path(f"{prefix}.bin").write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))
    pathlib.Path(f"{prefix}.idx").write_bytes(index_bytes(sizes))


def parameter_shapes(config):
    """Name on disk -> shape, written down from docs/numerics.md."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    rank, experts = config["kv_lora_rank"], config["n_routed_experts"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden]}

    def mlp(prefix, width):
        shapes[f"{prefix}.gate_proj.weight"] = [width, hidden]
        shapes[f"{prefix}.up_proj.weight"] = [width, hidden]
        shapes[f"{prefix}.down_proj.weight"] = [hidden, width]

    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes[f"{layer}.input_layernorm.weight"] = [hidden]
        shapes[f"{layer}.self_attn.q_proj.weight"] = [heads * (nope + rope), hidden]
        shapes[f"{layer}.self_attn.kv_a_proj_with_mqa.weight"] = [rank + rope, hidden]
        shapes[f"{layer}.self_attn.kv_a_layernorm.weight"] = [rank]
        shapes[f"{layer}.self_attn.kv_b_proj.weight"] = [heads * (nope + value), rank]
        shapes[f"{layer}.self_attn.o_proj.weight"] = [hidden, heads * value]
        shapes[f"{layer}.post_attention_layernorm.weight"] = [hidden]
        if index < config["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", config["intermediate_size"])
            continue
        shapes[f"{layer}.mlp.gate.weight"] = [experts, hidden]
        for expert in range(experts):
            mlp(f"{layer}.mlp.experts.{expert}", config["moe_intermediate_size"])
        mlp(f"{layer}.mlp.shared_experts", config["moe_intermediate_size"] * config["n_shared_experts"])
    shapes["model.norm.weight"] = [hidden]
    shapes["lm_head.weight"] = [config["vocab_size"], hidden]
    return shapes


def product(shape):
    result = 1
    for size in shape:
        result *= size
    return result


def safetensors_bytes(shapes, seed=1, edit_header=None, data=None):
    """All tensors in F32. `edit_header(header)` may change the header before it is written."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + 4 * product(shape)]}
        offset += 4 * product(shape)
    if data is None:
        rng = random.Random(seed)
        data = struct.pack(f"<{offset // 4}f", *(rng.gauss(0, 0.1) for _ in range(offset // 4)))
    if edit_header is not None:
        edit_header(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(path):
    """Name -> (dtype, shape, bytes)."""
    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    body = content[8 + length :]
    return {
        name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def snapshot(folder):
    """Every path below a folder with what it holds."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


class Result:
    def __init__(self, code, out, err, peak_kib):
        self.code, self.out, self.err, self.peak_kib = code, out, err, peak_kib

    def __str__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def environment(**extra):
    return dict(os.environ, **{name: str(value) for name, value in extra.items()})


def run(binary, arguments, cwd, timeout=120, **extra):
    """Runs the program to its end and measures the most memory it held."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [binary, *map(str, arguments)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment(**extra),
            preexec_fn=lambda: __import__("signal").alarm(timeout),
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Result(
            process.returncode,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            usage.ru_maxrss,
        )


def make_workspace(folder):
    """config.json, corpus, validation corpus, run.toml and a model folder `model` with random weights."""
    folder = pathlib.Path(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokens(folder / "corpus", tokens_of_text(6000, seed=1))
    write_tokens(folder / "valid", tokens_of_text(600, seed=2))
    (folder / "run.toml").write_text(toml(RUN))
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text(json.dumps(CONFIG))
    (folder / "model/model.safetensors").write_bytes(safetensors_bytes(parameter_shapes(CONFIG)))
    return folder
