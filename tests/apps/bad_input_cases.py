"""Kinds of bad input. A row: what is wrong, the change to a good workspace, the command, words that the line must hold."""

import json
import os
import shutil
import struct

import workspace as ws

HUGE = 2**63 - 1
LONG = "x" * 300

TRAIN = ["train", "--config", "run.toml"]
EVAL = ["eval", "--checkpoint", "model", "--data", "valid"]
LOGITS = ["logits", "--checkpoint", "model", "--tokens", "1,2,3", "--out", "out.safetensors"]

BENCH = ["bench", "attention"]
BENCH_STEP = ["bench", "step", "--config", "run.toml"]


# Changes to a workspace. Each returns a function of its folder.


def nothing(folder):
    del folder


def settings(section, **values):
    """run.toml with keys of a section replaced; None removes one."""

    def change(folder):
        tables = {name: dict(table) for name, table in ws.RUN.items()}
        table = tables.setdefault(section, {})
        for key, value in values.items():
            if value is None:
                del table[key]
            else:
                table[key] = value
        (folder / "run.toml").write_text(ws.toml(tables))

    return change


def run_toml(text):
    return lambda folder: (folder / "run.toml").write_text(text)


def more_toml(text):
    return lambda folder: (folder / "run.toml").write_text(ws.toml(ws.RUN) + text)


def model_config(**values):
    """config.json (for training, and of the model folder) with fields replaced; the text of json.dumps as it is."""

    def change(folder):
        text = json.dumps(dict(ws.CONFIG, **values))
        (folder / "config.json").write_text(text)
        (folder / "model/config.json").write_text(text)

    return change


def file(name, content):
    def change(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def removed(name):
    return lambda folder: (folder / name).unlink()


def cut(name, size):
    """The first `size` bytes, or all but the last -size."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def corpus(tokens):
    return lambda folder: ws.write_tokens(folder / "corpus", tokens)


def index(*arguments, **parts):
    return lambda folder: (folder / "corpus.idx").write_bytes(ws.index_bytes(*arguments, **parts))


def header(edit):
    """The model's safetensors with a changed header."""
    shapes = ws.parameter_shapes(ws.CONFIG)
    return lambda folder: (folder / "model/model.safetensors").write_bytes(
        ws.safetensors_bytes(shapes, edit_header=edit)
    )


def tensors(edit):
    """The model's safetensors with other tensors: `edit` changes the dict of shapes."""

    def change(folder):
        shapes = ws.parameter_shapes(ws.CONFIG)
        edit(shapes)
        (folder / "model/model.safetensors").write_bytes(ws.safetensors_bytes(shapes))

    return change


def overlap(entries):
    entries["model.norm.weight"]["data_offsets"][0] -= 4
    entries["model.norm.weight"]["data_offsets"][1] -= 4


def offsets(begin, end):
    def edit(entries):
        entries["lm_head.weight"]["data_offsets"] = [begin, end]

    return edit


def shape(value):
    def edit(entries):
        entries["lm_head.weight"]["shape"] = value

    return edit


def dtype(value):
    def edit(entries):
        entries["lm_head.weight"]["dtype"] = value

    return edit


def length_prefix(length, rest=b"{}"):
    return file("model/model.safetensors", struct.pack("<Q", length) + rest)


SIZES = [6000]  # of the corpus as one sequence

CASES = [
    # The command line.
    ("no command", nothing, [], ["command"]),
    ("unknown command", nothing, ["trian"], ["trian", "train"]),
    ("unknown flag", nothing, ["train", "--confg", "run.toml"], ["--confg", "--config"]),
    ("flag without value", nothing, ["train", "--config"], ["--config"]),
    ("no config", nothing, ["train"], ["--config"]),
    ("plan of no file", nothing, ["plan", "--config", "none.toml"], ["none.toml"]),
    ("plan of a bad key", settings("training", max_step=3), ["plan", "--config", "run.toml"], ["max_step", "training.max_steps"]),
    ("one argument too many", nothing, [*TRAIN, "extra"], ["extra"]),
    ("a line break in an argument", nothing, ["a\nb"], ["a\\nb"]),
    ("empty path", nothing, ["train", "--config", ""], ["--config"]),
    ("set without value", nothing, [*TRAIN, "--set", "training.seed"], ["training.seed"]),
    ("data without command", nothing, ["data"], ["stats"]),
    ("cuda", nothing, [*EVAL, "--device", "cuda"], ["cuda"]),
    ("unknown device", nothing, [*EVAL, "--device", "tpu"], ["tpu", "cpu"]),
    ("samples 0", nothing, [*EVAL, "--samples", "0"], ["--samples", "from 1"]),
    ("samples no number", nothing, [*EVAL, "--samples", "x"], ["--samples", "x"]),
    ("samples too large", nothing, [*EVAL, "--samples", str(2**64)], ["--samples"]),
    ("no checkpoint", nothing, ["eval", "--checkpoint", "none", "--data", "valid"], ["none"]),
    ("a file as checkpoint", nothing, ["eval", "--checkpoint", "run.toml", "--data", "valid"], ["run.toml"]),
    ("no eval data", nothing, ["eval", "--checkpoint", "model", "--data", "none"], ["none"]),
    ("negative temperature", nothing, ["generate", "--checkpoint", "model", "--prompt", "a", "--temperature", "-1"],
     ["--temperature"]),
    ("temperature NaN", nothing, ["generate", "--checkpoint", "model", "--prompt", "a", "--temperature", "nan"],
     ["--temperature"]),
    ("top-p above 1", nothing, ["generate", "--checkpoint", "model", "--prompt", "a", "--top-p", "1.5"], ["--top-p"]),
    ("max-tokens 0", nothing, ["generate", "--checkpoint", "model", "--prompt", "a", "--max-tokens", "0"],
     ["--max-tokens"]),
    ("prompt too long", nothing, ["generate", "--checkpoint", "model", "--prompt", "a" * 200], ["200", "128"]),
    ("tokens empty", nothing, [*LOGITS[:4], "", *LOGITS[5:]], ["--tokens"]),
    ("token no number", nothing, [*LOGITS[:4], "1,x", *LOGITS[5:]], ["--tokens", "x"]),
    ("token negative", nothing, [*LOGITS[:4], "1,-2", *LOGITS[5:]], ["--tokens", "-2"]),
    ("token of 30 digits", nothing, [*LOGITS[:4], "1," + "9" * 30, *LOGITS[5:]], ["--tokens"]),
    ("token above the vocabulary", nothing, [*LOGITS[:4], "1,260", *LOGITS[5:]], ["260", "259"]),
    ("one token for gradients", nothing, ["gradients", *LOGITS[1:4], "1", *LOGITS[5:]], ["2"]),
    ("bench without command", nothing, ["bench"], ["attention"]),
    ("unknown attention backend", nothing, [*BENCH, "--backend", "fast"], ["--backend", "fast", "cpu", "sm90"]),
    ("attention backend of another device", nothing, [*BENCH, "--device", "cpu", "--backend", "sm90"], ["sm90", "cuda"]),
    ("shape without a cross", nothing, [*BENCH, "--shapes", "1x64,64"], ["--shapes", "'64'", "BATCHxLENGTH"]),
    ("shape with another mask", nothing, [*BENCH, "--shapes", "1x64:half"], ["--shapes", "64:half"]),
    ("shape of nothing", nothing, [*BENCH, "--shapes", ""], ["--shapes", "BATCHxLENGTH"]),
    ("shape of length 0", nothing, [*BENCH, "--shapes", "1x0"], ["--shapes", "length 0", "from 1"]),
    ("bench shape near 2^63", nothing, [*BENCH, "--shapes", f"{HUGE}x64"], ["--shapes", "batch", "from 1 to 4096"]),
    ("bench of 0 heads", nothing, [*BENCH, "--heads", "0"], ["--heads", "from 1"]),
    ("unknown pass", nothing, [*BENCH, "--pass", "sideways"], ["--pass", "sideways", "backward_deterministic"]),
    ("unknown regime", nothing, [*BENCH, "--regime", "slow"], ["--regime", "slow", "sustained"]),
    ("unknown device of the bench", nothing, [*BENCH, "--device", "tpu"], ["--device", "tpu", "cuda"]),
    ("bench step without a config", nothing, BENCH_STEP[:2], ["--config"]),
    ("bench step of 0 steps", nothing, [*BENCH_STEP, "--steps", "0"], ["--steps", "from 1"]),
    ("bench step with a negative warmup", nothing, [*BENCH_STEP, "--warmup", "-1"], ["--warmup", "from 0"]),
    ("bench step of an unknown key", nothing, [*BENCH_STEP, "--set", "training.sed=1"], ["training.sed"]),
    ("bench step without data", nothing, [*BENCH_STEP, "--set", "data.train=['none']"], ["none"]),
    ("bench step into a folder", nothing, [*BENCH_STEP, "--out", "model"], ["model", "folder"]),
    ("bench step below a file", nothing, [*BENCH_STEP, "--out", "run.toml/out"], ["run.toml"]),
    ("bench step into nothing", nothing, [*BENCH_STEP, "--out", ""], ["--out"]),
    ("bench step with one argument too many", nothing, [*BENCH_STEP, "more"], ["more"]),
    ("logits into a folder", nothing, [*LOGITS[:6], "model"], ["model"]),
    ("logits below a file", nothing, [*LOGITS[:6], "run.toml/out"], ["run.toml"]),
    ("export onto a folder with content", nothing, ["export", "--checkpoint", "model", "--out", "model"], ["model"]),
    ("export below a file", nothing, ["export", "--checkpoint", "model", "--out", "run.toml/x"], ["run.toml"]),
    ("import of nothing", nothing, ["import", "--from", "none", "--out", "x"], ["none"]),
    ("verify of nothing", nothing, ["verify", "none"], ["none"]),
    ("tokenize without files", nothing, ["tokenize", "--tokenizer", "bytes", "--out", "x"], ["FILE"]),
    ("tokenize a missing file", nothing, ["tokenize", "--tokenizer", "bytes", "--out", "x", "none.txt"], ["none.txt"]),
    ("tokenize with an unknown tokenizer", file("a.txt", "text"),
     ["tokenize", "--tokenizer", "none", "--out", "x", "a.txt"], ["none"]),
    ("tokenize below a file", file("a.txt", "text"), ["tokenize", "--tokenizer", "bytes", "--out", "run.toml/x", "a.txt"],
     ["run.toml"]),
    ("stats of nothing", nothing, ["data", "stats", "none"], ["none"]),
    ("show a sample that is not there", nothing, ["data", "show", "corpus", "--sample", "1000000"], ["1000000"]),
    # run.toml
    ("missing run.toml", removed("run.toml"), TRAIN, ["run.toml"]),
    ("a folder as run.toml", nothing, ["train", "--config", "model"], ["model"]),
    ("empty run.toml", run_toml(""), TRAIN, ["empty"]),
    ("bad syntax", run_toml("[model\n"), TRAIN, ["line 1"]),
    ("not UTF-8", file("run.toml", b"[model]\nconfig = '\xff'"), TRAIN, ["run.toml", "line 2"]),
    ("a key twice", more_toml("[optimizer]\neps = 1\neps = 2\n"), TRAIN, ["eps", "line"]),
    ("a huge run.toml", run_toml("#" + "x" * (2 << 20)), TRAIN, ["bytes"]),
    ("deep nesting", run_toml("x = " + "[" * 100000), TRAIN, ["run.toml"]),
    ("no model.config", settings("model", config=None), TRAIN, ["model.config"]),
    ("no data.train", settings("data", train=None), TRAIN, ["data.train"]),
    ("unknown table", more_toml("[optimiser]\n"), TRAIN, ["optimiser", "optimizer"]),
    ("unknown key", settings("training", max_step=3), TRAIN, ["max_step", "training.max_steps"]),
    ("unknown key by --set", nothing, [*TRAIN, "--set", "training.max_step=3"], ["max_step", "training.max_steps"]),
    ("wrong type", settings("training", max_steps="3"), TRAIN, ["training.max_steps", "whole number"]),
    ("wrong type by --set", nothing, [*TRAIN, "--set", "training.max_steps=many"], ["training.max_steps", "many"]),
    ("zero", settings("training", micro_batch_size=0), TRAIN, ["training.micro_batch_size = 0", "from 1"]),
    ("negative", settings("training", sequence_length=-32), TRAIN, ["training.sequence_length = -32"]),
    ("huge", settings("training", global_batch_size=HUGE), TRAIN, ["training.global_batch_size", str(HUGE)]),
    ("beyond 64 bits", nothing, [*TRAIN, "--set", "training.seed=" + "9" * 30], ["training.seed"]),
    ("NaN", more_toml("[optimizer]\neps = nan\n"), TRAIN, ["optimizer.eps = nan"]),
    ("infinite", more_toml("[optimizer]\neps = inf\n"), TRAIN, ["optimizer.eps = inf"]),
    ("beta of 1", more_toml("[optimizer]\nbeta2 = 1.0\n"), TRAIN, ["optimizer.beta2", "below 1"]),
    ("min_lr above max_lr", settings("scheduler", min_lr=1.0), TRAIN, ["min_lr", "max_lr"]),
    ("enumeration", settings("scheduler", type="sine"), TRAIN, ["sine", "cosine"]),
    ("cuda in run.toml", settings("training", device="cuda"), TRAIN, ['training.device is "cuda"']),
    ("bf16 in run.toml", settings("training", dtype="bf16"), TRAIN, ["training.dtype", "bf16", "fp32"]),
    ("recompute", settings("training", recompute=["norm"]), TRAIN, ["recompute", "not supported yet"]),
    ("mesh", more_toml("[parallel]\nexpert_parallel_size = 2\n"), TRAIN, ["expert_parallel_size", "not supported yet"]),
    ("batches that do not divide", settings("training", micro_batch_size=3), TRAIN, ["4", "3", "divide"]),
    ("fewer samples than a batch", settings("training", global_batch_size=400), TRAIN, ["187", "400"]),
    ("no sample at all", settings("training", sequence_length=6000), TRAIN, ["corpus"]),
    ("no validation sample", settings("training", sequence_length=1000), TRAIN, ["valid"]),
    ("validation without data", settings("data", validation=[]), TRAIN, ["validation"]),
    ("a file as run folder", settings("checkpoint", directory="config.json"), TRAIN, ["config.json"]),
    ("a run folder below a file", settings("checkpoint", directory="config.json/run"), TRAIN, ["config.json"]),
    ("tokenizer that is not there", settings("data", tokenizer="none"), TRAIN, ["none"]),
    ("a run folder that cannot be made", settings("checkpoint", directory="/proc/none"), TRAIN, ["/proc/none"]),
    ("a run folder with a long name", settings("checkpoint", directory=LONG), TRAIN, ["255"]),
    ("a long name inside a new folder", nothing, ["import", "--from", "model", "--out", f"new/{LONG}"], ["255"]),
    ("a long name to read", nothing, ["verify", LONG], [LONG]),
    ("a long name to tokenize", nothing, ["tokenize", "--tokenizer", "bytes", "--out", "x", LONG], [LONG]),
    ("a link to itself", lambda folder: (folder / "loop").symlink_to("loop"),
     [*TRAIN, "--set", "checkpoint.directory=loop"], ["loop"]),
    ("a pipe as run.toml", lambda folder: ((folder / "run.toml").unlink(), os.mkfifo(folder / "run.toml")), TRAIN,
     ["run.toml"]),
    # config.json
    ("missing config.json", removed("config.json"), TRAIN, ["config.json"]),
    ("malformed config.json", file("config.json", "{"), TRAIN, ["config.json"]),
    ("config.json of another type", file("config.json", "[]"), TRAIN, ["config.json"]),
    ("deep config.json", file("config.json", "[" * 100000), TRAIN, ["config.json"]),
    ("another architecture", model_config(model_type="llama"), TRAIN, ["model_type", "llama"]),
    ("unknown field", model_config(hiden_size=3), TRAIN, ["hiden_size"]),
    ("NaN in config.json", model_config(rms_norm_eps=float("nan")), TRAIN, ["config.json"]),
    ("negative eps", model_config(rms_norm_eps=-1e-6), TRAIN, ["rms_norm_eps"]),
    ("negative size", model_config(hidden_size=-32), TRAIN, ["hidden_size", "-32"]),
    ("size of a wrong type", model_config(hidden_size="32"), TRAIN, ["hidden_size"]),
    ("fractional size", model_config(hidden_size=32.5), TRAIN, ["hidden_size"]),
    ("zero layers", model_config(num_hidden_layers=0), TRAIN, ["num_hidden_layers"]),
    ("2^62 layers", model_config(num_hidden_layers=2**62), TRAIN, ["num_hidden_layers"]),
    ("a thousand million layers", model_config(num_hidden_layers=10**9), TRAIN, ["num_hidden_layers"]),
    ("2^62 experts", model_config(n_routed_experts=2**62), TRAIN, ["n_routed_experts"]),
    ("2^62 wide", model_config(hidden_size=2**62), TRAIN, ["hidden_size"]),
    ("heads that do not divide", model_config(num_attention_heads=3, num_key_value_heads=3), TRAIN, ["heads"]),
    ("fewer key heads", model_config(num_key_value_heads=1), TRAIN, ["num_key_value_heads"]),
    ("more experts a token than experts", model_config(num_experts_per_tok=5), TRAIN, ["num_experts_per_tok"]),
    ("experts a token unset", model_config(num_experts_per_tok=None), TRAIN, ["num_experts_per_tok"]),
    ("no routed experts", model_config(n_routed_experts=None), TRAIN, ["n_routed_experts"]),
    ("norm_topk_prob", model_config(norm_topk_prob=True), TRAIN, ["norm_topk_prob"]),
    ("sigmoid scores", model_config(scoring_func="sigmoid"), TRAIN, ["scoring_func"]),
    ("vocabulary too small for bytes", model_config(vocab_size=257), TRAIN, ["257"]),
    # Token files
    ("missing .bin", removed("corpus.bin"), TRAIN, ["corpus.bin"]),
    ("missing .idx", removed("corpus.idx"), TRAIN, ["corpus.idx"]),
    ("empty .idx", file("corpus.idx", b""), TRAIN, ["corpus.idx"]),
    ("empty .bin", file("corpus.bin", b""), TRAIN, ["corpus"]),
    ("cut .bin", cut("corpus.bin", -2), TRAIN, ["corpus"]),
    ("cut .idx", cut("corpus.idx", -8), TRAIN, ["corpus.idx"]),
    ("wrong magic", index(SIZES, magic=b"XXXXXX\0\0\0"), TRAIN, ["corpus.idx"]),
    ("wrong version", index(SIZES, version=2), TRAIN, ["corpus.idx", "2"]),
    ("unknown token type", index(SIZES, code=99), TRAIN, ["corpus.idx", "99"]),
    ("floating tokens", index(SIZES, code=7), TRAIN, ["corpus.idx"]),
    ("count near 2^63", index(SIZES, counts=(HUGE, 2)), TRAIN, ["corpus.idx"]),
    ("count near 2^64", index(SIZES, counts=(2**64 - 1, 2**64 - 1)), TRAIN, ["corpus.idx"]),
    ("negative length", index([-5, 6005], pointers=[0, 0]), TRAIN, ["corpus.idx"]),
    ("negative pointer", index(SIZES, pointers=[-2]), TRAIN, ["corpus.idx"]),
    ("pointer beyond the file", index(SIZES, pointers=[HUGE]), TRAIN, ["corpus.idx"]),
    ("lengths beyond the file", index([2**31 - 1]), TRAIN, ["corpus"]),
    ("document beyond the sequences", index(SIZES, documents=[0, 7]), TRAIN, ["corpus.idx"]),
    ("token above the vocabulary in the data", corpus([1] * 5000 + [260] + [1] * 999), TRAIN, ["260", "5000"]),
    ("a corpus that stats cannot read", file("corpus.idx", b"x"), ["data", "stats", "corpus"], ["corpus.idx"]),
    # Checkpoints
    ("empty folder as model", lambda folder: (folder / "empty").mkdir(),
     ["eval", "--checkpoint", "empty", "--data", "valid"], ["empty"]),
    ("no weights", removed("model/model.safetensors"), EVAL, ["model"]),
    ("no config.json in the model", removed("model/config.json"), EVAL, ["model"]),
    ("empty safetensors", file("model/model.safetensors", b""), EVAL, ["model.safetensors"]),
    ("cut safetensors", cut("model/model.safetensors", -4), EVAL, ["model.safetensors"]),
    ("safetensors cut in the header", cut("model/model.safetensors", 100), EVAL, ["model.safetensors"]),
    ("header near 2^63", length_prefix(HUGE), EVAL, ["model.safetensors"]),
    ("header near 2^64", length_prefix(2**64 - 1), EVAL, ["model.safetensors"]),
    ("header beyond the file", length_prefix(50_000_000), EVAL, ["model.safetensors"]),
    ("header that is no JSON", length_prefix(8, b"not json"), EVAL, ["model.safetensors"]),
    ("header that is an array", length_prefix(8, b"[1,2,3] "), EVAL, ["model.safetensors"]),
    ("deep header", length_prefix(100000, b"[" * 100000), EVAL, ["model.safetensors"]),
    ("overlapping tensors", header(overlap), EVAL, ["model.safetensors"]),
    ("offset near 2^63", header(offsets(HUGE - 4, HUGE)), EVAL, ["model.safetensors"]),
    ("negative offset", header(offsets(-4, 0)), EVAL, ["lm_head.weight"]),
    ("end before begin", header(offsets(100, 0)), EVAL, ["lm_head.weight"]),
    ("shape near 2^63", header(shape([HUGE, HUGE])), EVAL, ["lm_head.weight"]),
    ("negative shape", header(shape([-260, -32])), EVAL, ["lm_head.weight"]),
    ("shape that is no list", header(shape("big")), EVAL, ["lm_head.weight"]),
    ("unknown dtype", header(dtype("Q4")), EVAL, ["lm_head.weight", "Q4"]),
    ("dtype of another size", header(dtype("F64")), EVAL, ["lm_head.weight"]),
    ("integer weights", header(dtype("I32")), EVAL, ["lm_head.weight"]),
    ("wrong shape", tensors(lambda s: s.update({"lm_head.weight": [32, 260]})), EVAL, ["lm_head.weight", "[260, 32]"]),
    ("missing tensor", tensors(lambda s: s.pop("model.norm.weight")), EVAL, ["model.norm.weight"]),
    ("all tensors missing", tensors(lambda s: (s.clear(), s.update({"lm_head.weight": [260, 32]}))), EVAL,
     ["35", "model.embed_tokens.weight"]),
    ("unexpected tensor", tensors(lambda s: s.update({"extra.weight": [2]})), EVAL, ["extra.weight"]),
    ("training from damaged weights", lambda folder: (settings("model", config="model")(folder),
                                                      cut("model/model.safetensors", -4)(folder)), TRAIN,
     ["model.safetensors"]),
    ("damaged weights for a run folder that is there",
     lambda folder: (settings("model", config="model")(folder), cut("model/model.safetensors", -4)(folder),
                     (folder / "run").mkdir()), TRAIN, ["model.safetensors"]),
    ("index that is no JSON", lambda folder: (removed("model/model.safetensors")(folder),
                                              file("model/model.safetensors.index.json", "{")(folder)), EVAL,
     ["model.safetensors.index.json"]),
    ("index that names a missing shard",
     lambda folder: (removed("model/model.safetensors")(folder),
                     file("model/model.safetensors.index.json",
                          json.dumps({"weight_map": {"lm_head.weight": "a.safetensors"}}))(folder)), EVAL,
     ["a.safetensors"]),
    ("index that leads out of the folder",
     lambda folder: (shutil.move(folder / "model/model.safetensors", folder / "x.safetensors"),
                     file("model/model.safetensors.index.json",
                          json.dumps({"weight_map": {name: "../x.safetensors"
                                                     for name in ws.parameter_shapes(ws.CONFIG)}}))(folder)), EVAL,
     ["../x.safetensors"]),
]
