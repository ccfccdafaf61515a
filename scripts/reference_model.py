"""Small DeepSeek-V2 models with random weights, as transformers' DeepseekV2ForCausalLM writes and computes them.

What make_model_goldens.py and parity_transformers.py share.
"""

import json
import math
import pathlib
import tempfile

import torch
from safetensors import safe_open
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from transformers.utils import logging
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter

logging.set_verbosity_error()
logging.disable_progress_bar()

# Relative distance that scores next to each other must keep where the choice of experts is cut: far above the
# differences between two implementations in fp32.
ROUTING_MARGIN = 1e-3


def make_config(**fields):
    """A small configuration: `fields` over defaults of a size that runs in no time."""
    defaults = {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "kv_lora_rank": 8,
        "q_lora_rank": None,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 6,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 10,
        "first_k_dense_replace": 1,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return DeepseekV2Config(**{**defaults, **fields})


def yarn(**fields):
    """rope_parameters in the manner of DeepSeek-V2-Lite."""
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 40.0,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 16,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        **fields,
    }


def make_model(config, seed, device="cpu"):
    """A model in fp32 whose activations, scores and logits are of order 1, with no norm or bias at its start value."""
    with torch.device(device):
        model = DeepseekV2ForCausalLM(config).float()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, device=device)
            if name.endswith("norm.weight"):
                noise = 1 + 0.1 * noise
            elif name.endswith(".bias"):
                noise = 0.2 * noise
            elif "embed_tokens" not in name:
                noise = noise * (1.5 / math.sqrt(parameter.shape[-1]))
            elif config.tie_word_embeddings:
                noise = noise * (2.0 / math.sqrt(parameter.shape[-1]))
            parameter.copy_(noise)
    return model


def save_in_bf16(model, folder, max_shard_size):
    """As released folders are: bf16 in shards, the router's weight in F32."""
    gates = {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith("mlp.gate.weight")}
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    for name, gate in gates.items():
        model.get_parameter(name).data = gate
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def load_model(folder, dtype=torch.float32, device="cpu"):
    model = DeepseekV2ForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )
    check_softmax_scale(model)
    return model.eval().to(device)


def check_softmax_scale(model):
    """transformers before 5.15 left YaRN's factor out; the reference must not be one of those."""
    config, rope = model.config, model.config.rope_parameters
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    if rope["rope_type"] != "default" and rope.get("mscale_all_dim"):
        if rope["factor"] > 1:
            scale *= (0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1) ** 2
    found = model.model.layers[0].self_attn.scaling
    assert math.isclose(found, scale, rel_tol=1e-12), f"softmax scale {found}, expected {scale}"


def read_tensors(folder):
    """{name on disk: tensor} of all .safetensors files of a folder."""
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def gradients_by_name_on_disk(model):
    """{name on disk: gradient}: transformers itself names and cuts them, as if they were the weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.copy_(gradient)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return read_tensors(folder)


def reference(folder, tokens):
    """(logits [tokens, vocab], loss [1], gradients) of the tokens as one sequence, in fp32."""
    model = load_model(folder)
    logits = model(torch.tensor([tokens])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))
    loss.backward()
    return logits.detach(), loss.detach().reshape(1), gradients_by_name_on_disk(model)


def logits_of(folder, tokens):
    with torch.no_grad():
        return load_model(folder)(torch.tensor([tokens])).logits[0]


def _margin(values, kept):
    """The smallest relative distance between the last value kept and the first one left, over all rows."""
    ordered = values.sort(dim=-1, descending=True).values
    if kept >= ordered.shape[-1]:
        return math.inf
    return ((ordered[:, kept - 1] - ordered[:, kept]) / ordered[:, kept - 1]).min().item()


def routing_margin(folder, tokens):
    """How far the closest choice of experts or groups is from another one."""
    model = load_model(folder)
    logits = []
    for module in model.modules():
        if isinstance(module, DeepseekV2TopkRouter):
            module.register_forward_hook(lambda _module, _inputs, outputs: logits.append(outputs[0].double()))
    with torch.no_grad():
        model(torch.tensor([tokens]))
    config, margins = model.config, [math.inf]
    for scores in (layer.softmax(-1) for layer in logits):
        if config.topk_method == "group_limited_greedy":
            best = scores.view(len(tokens), config.n_group, -1).max(-1).values
            margins.append(_margin(best, config.topk_group))
            group_of = torch.arange(config.n_routed_experts) // (config.n_routed_experts // config.n_group)
            kept = torch.zeros_like(best).scatter(1, best.topk(config.topk_group).indices, 1)
            scores = scores * kept[:, group_of]
        if config.num_experts_per_tok < config.n_routed_experts:
            margins.append(_margin(scores, config.num_experts_per_tok))
    return min(margins)


def random_tokens(config, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (count,), generator=generator).tolist()


def save_with_clear_routing(config, folder, count, seed, bf16=False):
    """Writes a model into `folder`, from the first seed at which no token's choice of experts is close; its tokens."""
    for attempt in range(1000):
        model = make_model(config, seed + attempt)
        if bf16:
            save_in_bf16(model, folder, max_shard_size="12KB")
        else:
            model.save_pretrained(folder)
        tokens = random_tokens(config, count, seed + attempt)
        if config.pad_token_id is not None:
            tokens[len(tokens) // 2] = config.pad_token_id
        if routing_margin(folder, tokens) > ROUTING_MARGIN:
            return tokens
    raise RuntimeError(f"no seed from {seed} on keeps the routing margin with {count} tokens")


def read_json(path):
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
