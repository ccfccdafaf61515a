"""`lathe bench step`: what it counts, and that it leaves nothing behind. What it times is not judged.

    python3 bench_step_test.py LATHE
"""

import json
import os
import pathlib
import re
import sys
import tempfile
import unittest

import workspace as ws

LATHE = ""
TOKENS = ws.RUN["training"]["global_batch_size"] * ws.RUN["training"]["sequence_length"]
MICRO_BATCHES = ws.RUN["training"]["global_batch_size"] // ws.RUN["training"]["micro_batch_size"]
LAYERS = ws.CONFIG["num_hidden_layers"]
MOE_LAYERS = LAYERS - ws.CONFIG["first_k_dense_replace"]
COLUMNS = ["class", "calls", "time_us", "share", "flops", "bytes", "tflops", "gb_per_second", "share_of_ceiling"]


def first_step(text):
    """The first step's line from the loss to the gradient norm."""
    return re.search(r"step 0{7}1/.*?(cross-entropy-loss .* gradient-norm [\d.]+)", text).group(1)


class BenchStepTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.root = ws.make_workspace(cls.temporary.name)
        cls.before = ws.snapshot(cls.root)
        command = ["bench", "step", "--config", "run.toml", "--steps", "3", "--warmup", "1", "--out", "step.json"]
        cls.result = ws.run(LATHE, command, cls.root)
        assert (cls.result.code, cls.result.err) == (0, ""), cls.result
        cls.after = ws.snapshot(cls.root)
        cls.step = json.loads((cls.root / "step.json").read_text())
        cls.rows = {row["class"]: row for row in cls.step["rows"]}

    def test_nothing_is_left_but_the_file_asked_for(self):
        self.assertEqual({name: value for name, value in self.after.items() if name != "step.json"}, self.before)

    def test_lines_of_steps_are_those_of_training(self):
        lines = [line for line in self.result.out.splitlines() if "| INFO | step " in line]
        self.assertEqual([re.search(r"step (\d+/\d+)", line).group(1) for line in lines],
                         [f"{step:08d}/{1 + 3 + 3:08d}" for step in range(1, 8)])
        train = ws.run(LATHE, ["train", "--config", "run.toml", "--set", "checkpoint.directory=other"], self.root)
        self.assertEqual(first_step(self.result.out), first_step(train.out))

    def test_table(self):
        lines = self.result.out.splitlines()
        begin = next(i for i, line in enumerate(lines) if line.startswith("class "))
        names = [re.split(r"\s{2,}", line)[0] for line in lines[begin + 1 :]]
        self.assertEqual(names[: len(self.rows) + 2], [row["class"] for row in self.step["rows"]] + ["total", "unexplained"])
        self.assertIn("the classes explain ", self.result.out)

    def test_fields_agree(self):
        step = self.step
        self.assertEqual((step["dtype"], step["steps"], step["warmup"]), ("f32", 3, 1))
        parameters = sum(ws.product(shape) for shape in ws.parameter_shapes(ws.CONFIG).values())
        self.assertEqual(step["parameters"], parameters)
        for value in ("step_us", "recorded_step_us", "peak_memory_bytes"):
            self.assertGreater(step[value], 0)
        self.assertAlmostEqual(step["tokens_per_second"] * step["step_us"] * 1e-6 / TOKENS, 1)
        gemm, copy = step["gemm"]["tflops"] * 1e6, step["copy"]["gb_per_second"] * 1e3  # a microsecond
        for row in [*step["rows"], step["total"]]:
            self.assertEqual(list(row), COLUMNS)
            self.assertGreater(row["bytes"], 0, row)
            self.assertAlmostEqual(row["share"] * step["step_us"] / row["time_us"], 1)
            self.assertAlmostEqual(row["gb_per_second"] * row["time_us"] * 1e3 / row["bytes"], 1)
            self.assertAlmostEqual(row["tflops"] * row["time_us"] * 1e6, row["flops"], delta=1e-6 * row["flops"])
        for row in step["rows"]:
            least = max(row["flops"] / gemm, row["bytes"] / copy)
            self.assertAlmostEqual(row["share_of_ceiling"] * row["time_us"] / least, 1)
        times = [row["time_us"] for row in step["rows"]]
        self.assertEqual(times, sorted(times, reverse=True))
        for field in ("calls", "time_us", "share", "flops", "bytes"):
            total = sum(row[field] for row in step["rows"])
            self.assertAlmostEqual(step["total"][field] / total, 1)
        self.assertAlmostEqual(step["explained"], step["total"]["share"])
        self.assertAlmostEqual(step["total"]["time_us"] + step["unexplained_us"], step["step_us"], places=3)

    def test_classes_explain_the_steps_in_which_they_were_recorded(self):
        share = self.step["total"]["time_us"] / self.step["recorded_step_us"]
        self.assertLessEqual(share, 1)
        self.assertGreater(share, 0.5)

    def test_flops_of_linear_layers(self):
        # Each weight meets each token once forward, and twice backward: for its own gradient and for the input's.
        dense = experts = 0
        for name, shape in ws.parameter_shapes(ws.CONFIG).items():
            if len(shape) == 2 and "embed" not in name:
                if ".experts." in name:
                    experts += ws.product(shape) * ws.CONFIG["num_experts_per_tok"] // ws.CONFIG["n_routed_experts"]
                else:
                    dense += ws.product(shape)
        self.assertEqual(self.rows["linear_forward"]["flops"], 2 * TOKENS * dense)
        self.assertEqual(self.rows["linear_backward"]["flops"], 4 * TOKENS * dense)
        self.assertEqual(self.rows["grouped_linear_forward"]["flops"], 2 * TOKENS * experts)
        self.assertEqual(self.rows["grouped_linear_backward"]["flops"], 4 * TOKENS * experts)

    def test_flops_of_attention(self):
        config, length = ws.CONFIG, ws.RUN["training"]["sequence_length"]
        pairs = TOKENS * length / 2 * config["num_attention_heads"] * LAYERS
        flops = 2 * pairs * (config["qk_nope_head_dim"] + config["qk_rope_head_dim"] + config["v_head_dim"])
        self.assertEqual(self.rows["mla_attention_forward"]["flops"], flops)
        self.assertEqual(self.rows["mla_attention_backward"]["flops"], 2.5 * flops)

    def test_calls_and_bytes(self):
        calls = {"mla_attention_forward": LAYERS, "router_forward": MOE_LAYERS, "permute_backward": MOE_LAYERS,
                 "cross_entropy": 1, "embedding_backward": 1}
        for name, count in calls.items():
            self.assertEqual(self.rows[name]["calls"], count * MICRO_BATCHES, name)
        self.assertEqual(self.rows["sum_of_squares"]["calls"], 1)
        # Parameter, m and v are read and written, the gradient is read.
        self.assertEqual(self.rows["adamw"]["bytes"], 7 * 4 * self.step["parameters"])
        # Gradients, losses and counts are cleared; a micro-batch's samples and a dense layer's output are copied.
        self.assertEqual(self.rows["copies and fills"]["calls"], 3 + MICRO_BATCHES * (1 + LAYERS - MOE_LAYERS))

    def test_the_run_folder_is_not_looked_at(self):
        for folder in ("reference", "no/such/folder"):
            with self.subTest(folder=folder):
                command = ["bench", "step", "--config", "run.toml", "--steps", "1", "--warmup", "0"]
                before = ws.snapshot(self.root)
                result = ws.run(LATHE, [*command, "--set", f"checkpoint.directory={folder}"], self.root)
                self.assertEqual((result.code, result.err), (0, ""), result)
                self.assertEqual(ws.snapshot(self.root), before)

    def test_a_model_folder_gives_the_weights(self):
        command = ["--config", "run.toml", "--set", "model.config=model", "--set", "checkpoint.directory=from_model"]
        bench = ws.run(LATHE, ["bench", "step", *command, "--steps", "1", "--warmup", "0"], self.root)
        train = ws.run(LATHE, ["train", *command], self.root)
        self.assertEqual((bench.code, train.code), (0, 0), bench)
        self.assertEqual(first_step(bench.out), first_step(train.out))
        self.assertNotEqual(first_step(bench.out), first_step(self.result.out))


if __name__ == "__main__":
    LATHE = str(pathlib.Path(sys.argv.pop(1)).resolve())
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    unittest.main()
