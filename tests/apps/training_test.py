"""Runs from end to end: what is saved, resumed, killed and refused.

    python3 training_test.py LATHE
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import workspace as ws

LATHE = ""
STEPS = 12
INTERVAL = 3
TIMING = ("step_time", "tokens_per_second", "peak_memory_bytes")  # what two equal runs may differ in
STEP_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO \| step (\d{8})/(\d{8}) \| step-time \d+\.\d{3} sec"
    r" \| cross-entropy-loss \d+\.\d{4} \| load-balance-loss \d+\.\d{6} \| learning-rate \d\.\d{6}e[+-]\d\d"
    r" \| gradient-norm \d+\.\d{4} \| tokens-per-second [\d,]+ \| peak-memory \d+\.\d\d GB(?: \| .*)?$"
)
VALIDATION_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO \| validation \| step (\d{8})"
    r" \| cross-entropy-loss \d+\.\d{4} \| perplexity \d+\.\d{4} \| tokens [\d,]+$"
)


def train_arguments(folder, *more, steps=STEPS):
    arguments = ["train", "--config", "run.toml", "--set", f"checkpoint.directory={folder}"]
    arguments += ["--set", f"training.max_steps={steps}", "--set", f"checkpoint.interval={INTERVAL}"]
    return arguments + list(more)


def rows(folder, steps_only=False):
    """metrics.jsonl without what two equal runs may differ in."""
    found = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "step_time" in row or not steps_only:
            found.append({key: value for key, value in row.items() if key not in TIMING})
    return found


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("step-*"))


def tensors_of(checkpoint):
    return {path.name: path.read_bytes() for path in sorted(checkpoint.glob("*.safetensors"))}


def flip_byte(path, place=-10):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


class TrainingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.root = ws.make_workspace(cls.temporary.name)
        cls.reference = cls.root / "reference"
        cls.reference_result = ws.run(LATHE, train_arguments("reference"), cls.root)
        assert cls.reference_result.code == 0, cls.reference_result

    def setUp(self):
        self.folder = self.root / self.id().split(".")[-1]

    def train(self, *more, code=0, steps=STEPS, **environment):
        result = ws.run(LATHE, train_arguments(self.folder.name, *more, steps=steps), self.root, **environment)
        self.assertEqual(result.code, code, result)
        if code == 2:
            self.assertEqual(result.out, "", result)
            self.assertRegex(result.err, r"\Alathe: error: [^\n]*\n\Z")
        return result

    def start(self, *more, steps=STEPS):
        process = subprocess.Popen(
            [LATHE, *train_arguments(self.folder.name, *more, steps=steps)],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for_step(self, process, step):
        for line in process.stdout:
            if f"| step {step:08d}/" in line:
                return
        self.fail(f"the run ended before step {step}")

    def assert_equal_to_reference(self, folder=None):
        """The last checkpoint to the last bit and each row to the last digit."""
        folder = folder or self.folder
        last = f"step-{STEPS:08d}"
        self.assertEqual(checkpoints(folder)[-1], last)
        expected = tensors_of(self.reference / last)
        self.assertTrue(expected)
        self.assertEqual(tensors_of(folder / last), expected)
        self.assertEqual(rows(folder), rows(self.reference))

    def copy_of_reference(self, *without):
        shutil.copytree(self.reference, self.folder)
        for name in without:
            shutil.rmtree(self.folder / name)

    # What a run prints and writes

    def test_lines_and_rows(self):
        lines = self.reference_result.out.splitlines()
        self.assertEqual(self.reference_result.err, "")
        steps = [line for line in lines if "| INFO | step " in line]
        self.assertEqual(len(steps), STEPS)
        for number, line in enumerate(steps, 1):
            match = STEP_LINE.match(line)
            self.assertIsNotNone(match, line)
            self.assertEqual(match.groups(), (f"{number:08d}", f"{STEPS:08d}"))
        validations = [line for line in lines if "| validation |" in line]
        self.assertTrue(validations)
        for line in validations:
            self.assertRegex(line, VALIDATION_LINE)

        found = [json.loads(line) for line in (self.reference / "metrics.jsonl").read_text().splitlines()]
        step_rows = [row for row in found if "step_time" in row]
        fields = ["step", "step_time", "cross_entropy_loss", "load_balance_loss", "learning_rate", "gradient_norm"]
        fields += ["tokens_per_second", "peak_memory_bytes", "consumed_samples"]
        self.assertEqual([row["step"] for row in step_rows], list(range(1, STEPS + 1)))
        for row in step_rows:
            self.assertEqual(list(row), fields)
            self.assertEqual(row["consumed_samples"], 4 * row["step"])
        validation_rows = [row for row in found if "step_time" not in row]
        self.assertEqual([row["step"] for row in validation_rows], [4, 8, 12])
        for row in validation_rows:
            self.assertEqual(list(row), ["step", "validation_loss", "perplexity", "tokens"])
        self.assertLess(step_rows[-1]["cross_entropy_loss"], step_rows[0]["cross_entropy_loss"] - 1)
        self.assertTrue(list(self.reference.glob("events.out.tfevents.*")))

    def test_checkpoint_folders(self):
        self.assertEqual(checkpoints(self.reference), ["step-00000006", "step-00000009", "step-00000012"])
        self.assertEqual([p.name for p in self.reference.iterdir() if p.name.startswith(".tmp")], [])
        for name in checkpoints(self.reference):
            files = {path.name for path in (self.reference / name).iterdir()}
            self.assertLessEqual({"model.safetensors", "config.json", "state.json", "manifest.json"}, files)
            self.assertTrue([file for file in files if re.fullmatch(r"optimizer-.*\.safetensors", file)])

    def test_the_balance_part_only_with_a_coefficient(self):
        result = self.train("--set", "training.moe_load_balance_coef=0", steps=1)
        self.assertNotIn("load-balance-loss", result.out)
        self.assertEqual(rows(self.folder, steps_only=True)[0]["load_balance_loss"], 0)

    def test_a_forced_router_is_balanced_and_says_so(self):
        # Choices are dealt to the experts in turn, equally many to each: the balance term is its coefficient.
        coefficient = ["--set", "training.moe_load_balance_coef=0.25"]
        for forced in (True, False):
            with self.subTest(forced=forced):
                self.folder = self.root / f"forced_{forced}"
                result = self.train(*coefficient, "--set", f"training.force_balanced_router={str(forced).lower()}", steps=2)
                self.assertEqual("the router is forced to balance" in result.out, forced)
                for row in rows(self.folder, steps_only=True):
                    self.assertEqual(abs(row["load_balance_loss"] - 0.25) < 1e-6, forced, row)

    def test_the_plan_is_what_the_run_says(self):
        result = self.train(steps=1)
        planned = re.search(r"planned memory: .*total ([\d.]+ [MG]B)\n", result.out).group(1)
        self.assertRegex(result.out, r"\| INFO \| memory in use: weights [\d.]+ MB, .*activations [\d.]+ MB, .*total ")
        plan = ws.run(LATHE, ["plan", "--config", "run.toml"], self.root)
        self.assertEqual((plan.code, plan.err), (0, ""), plan)
        lines = [line.split() for line in plan.out.splitlines()]
        names = ["memory", "weights", "gradients", "moments", "activations", "scratch", "tokens", "rope", "total"]
        self.assertEqual([line[0] for line in lines], names)
        self.assertEqual(" ".join(lines[-1][1:]), planned)

    def test_steps_without_a_finite_gradient_are_skipped(self):
        # The first update throws the weights far out; from then on nothing is finite, and nothing is changed.
        rate = ["--set", "scheduler.max_lr=1e30", "--set", "scheduler.warmup_steps=0", "--set", "optimizer.weight_decay=0"]
        result = self.train(*rate, steps=3)
        self.assertRegex(result.err, r"step 3 is skipped: the gradient of model\.\S+ is not finite")
        self.assertRegex(result.out, r"step 00000003/00000003 .* \| skipped 2\n")
        self.assertEqual([row["gradient_norm"] for row in rows(self.folder, steps_only=True)][1:], [None, None])
        self.assertEqual(json.loads((self.folder / "step-00000003" / "state.json").read_text())["updates"], 1)

    # The same run, to the last bit

    def test_again(self):
        self.train()
        self.assert_equal_to_reference()

    def test_on_another_number_of_threads(self):
        for threads in (1, 2, 3):
            with self.subTest(threads=threads):
                self.folder = self.root / f"threads_{threads}"
                self.train(OMP_NUM_THREADS=threads)
                self.assert_equal_to_reference()

    def test_resumed_half_way(self):
        self.copy_of_reference("step-00000009", "step-00000012")
        result = self.train("--resume")
        self.assertIn("step-00000006", result.out)
        self.assertNotIn("| step 00000006/", result.out)
        self.assertIn("| step 00000007/", result.out)
        self.assert_equal_to_reference()

    def test_longer_run_resumed(self):
        constant = ["--set", "scheduler.type=constant"]
        whole = self.root / "constant_whole"
        halves = self.root / "constant_halves"
        self.folder = whole
        self.train(*constant)
        self.folder = halves
        self.train(*constant, steps=STEPS // 2)
        result = self.train(*constant, "--resume")
        self.assertRegex(result.out + result.err, r"training\.max_steps")
        self.assertEqual(tensors_of(halves / f"step-{STEPS:08d}"), tensors_of(whole / f"step-{STEPS:08d}"))
        self.assertEqual(rows(halves, steps_only=True), rows(whole, steps_only=True))

    def test_killed_at_random_moments(self):
        seed = random.randrange(2**32)
        rng = random.Random(seed)
        for round_ in range(3):
            with self.subTest(seed=seed, round=round_):
                self.folder = self.root / f"killed_{round_}"
                process = self.start("--resume")
                for _ in range(2):
                    self.wait_a_moment(process, rng)
                    process.kill()
                    process.wait()
                    process = self.start("--resume")
                process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0)
                self.assert_equal_to_reference()
                self.assertEqual([p.name for p in self.folder.iterdir() if p.name.startswith(".tmp")], [])

    def wait_a_moment(self, process, rng):
        for _ in range(rng.randint(0, 14)):  # lines, or to the end
            if not process.stdout.readline():
                return
        time.sleep(rng.random() * 0.05)

    # Stopping and going on

    def test_sigterm_saves_the_step_in_flight(self):
        process = self.start(steps=1000000)
        self.wait_for_step(process, 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0)
        last = rows(self.folder, steps_only=True)[-1]["step"]
        self.assertEqual(checkpoints(self.folder)[-1], f"step-{last:08d}")
        self.assertEqual(ws.run(LATHE, ["verify", self.folder], self.root).code, 0)

    def test_a_second_run_names_the_first(self):
        process = self.start(steps=1000000)
        self.wait_for_step(process, 1)
        for more in ([], ["--resume"]):
            self.assertIn(str(process.pid), self.train(*more, code=2, steps=1000000).err)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0)

    def test_the_lock_of_a_killed_run_is_free(self):
        process = self.start(steps=1000000)
        self.wait_for_step(process, INTERVAL + 1)
        process.kill()
        process.wait()
        self.train("--resume")

    def test_a_damaged_checkpoint_is_skipped(self):
        self.copy_of_reference()
        flip_byte(self.folder / "step-00000012/model.safetensors")
        flip_byte(self.folder / "step-00000009/optimizer-00001.safetensors")
        result = self.train("--resume")
        said = result.out + result.err
        for name, file in (("step-00000012", "model.safetensors"), ("step-00000009", "optimizer-00001.safetensors")):
            lines = [line for line in said.splitlines() if name in line and file in line]
            self.assertTrue(lines, result)
        self.assertIn("| step 00000007/", result.out)
        self.assert_equal_to_reference()

    def test_a_checkpoint_without_manifest_does_not_count(self):
        self.copy_of_reference()
        (self.folder / "step-00000012/manifest.json").unlink()
        self.assertIn("step-00000012", self.train("--resume").err)
        self.assert_equal_to_reference()

    def test_resume_without_a_checkpoint_starts_at_step_1(self):
        result = self.train("--resume")
        self.assertRegex(result.out + result.err, r"step 1\b")
        self.assert_equal_to_reference()

    def test_resume_at_the_end_says_so(self):
        self.copy_of_reference()
        before = ws.snapshot(self.folder)
        result = self.train("--resume")
        self.assertIn(f"{STEPS}", result.out + result.err)
        self.assertNotRegex(result.out, STEP_LINE)
        self.assertEqual(ws.snapshot(self.folder), before)

    # Refused

    def assert_refused_in_place(self, *more, words):
        before = ws.snapshot(self.folder)
        result = self.train(*more, code=2)
        for word in words:
            self.assertIn(word, result.err)
        self.assertEqual(ws.snapshot(self.folder), before)

    def test_a_folder_with_checkpoints_needs_resume(self):
        self.copy_of_reference()
        self.assert_refused_in_place(words=["--resume"])

    def test_changes_of_the_model_or_the_samples(self):
        self.copy_of_reference("step-00000009", "step-00000012")
        shutil.copy(self.root / "valid.bin", self.root / "other.bin")
        shutil.copy(self.root / "valid.idx", self.root / "other.idx")
        shutil.copy(self.root / "config.json", self.root / "other.json")
        for change in ("training.seed=1", "training.sequence_length=16", "data.train=['other']",
                       "model.config=other.json", "model.softmax_scale=0.5"):
            with self.subTest(change):
                key, value = change.split("=")
                self.assert_refused_in_place("--resume", "--set", change, words=[key, value.strip("[]'")])

    def test_another_model_under_the_same_name(self):
        self.copy_of_reference("step-00000009", "step-00000012")
        shutil.copytree(self.root, self.root / "moved", ignore=lambda folder, names: [
            name for name in names if folder == str(self.root) and name not in
            ("config.json", "corpus.bin", "corpus.idx", "valid.bin", "valid.idx", "run.toml", self.folder.name)])
        config = dict(ws.CONFIG, moe_intermediate_size=24)
        (self.root / "moved/config.json").write_text(json.dumps(config))
        result = ws.run(LATHE, train_arguments(self.folder.name, "--resume"), self.root / "moved")
        self.assertEqual(result.code, 2, result)
        self.assertIn("moe_intermediate_size", result.err)
        self.assertRegex(result.err, r"\Alathe: error: [^\n]*\n\Z")

    # The other commands on what a run leaves

    def lathe(self, *arguments, code=0):
        result = ws.run(LATHE, arguments, self.root)
        self.assertEqual(result.code, code, result)
        return result

    def test_eval_measures_what_validation_measured(self):
        result = self.lathe("eval", "--checkpoint", "reference", "--data", "valid", "--samples", "8")
        loss = float(re.search(r"cross-entropy-loss (\d+\.\d+)", result.out).group(1))
        validation = [row for row in rows(self.reference) if "validation_loss" in row][-1]
        self.assertAlmostEqual(loss, validation["validation_loss"], delta=1.01e-4)
        self.assertIn("perplexity", result.out)

    def test_generate_repeats_with_its_seed(self):
        command = ["generate", "--checkpoint", "reference", "--prompt", "a", "--max-tokens", "30"]
        first = self.lathe(*command, "--seed", "1").out
        self.assertEqual(self.lathe(*command, "--seed", "1").out, first)
        self.assertNotEqual(self.lathe(*command, "--seed", "2").out, first)
        greedy = self.lathe(*command, "--temperature", "0", "--seed", "1").out
        self.assertEqual(self.lathe(*command, "--temperature", "0", "--seed", "2").out, greedy)

    def test_export_and_import(self):
        last = self.reference / f"step-{STEPS:08d}"
        self.lathe("export", "--checkpoint", "reference", "--out", "exported")
        exported = self.root / "exported"
        self.assertEqual((exported / "model.safetensors").read_bytes(), (last / "model.safetensors").read_bytes())
        self.lathe("import", "--from", "exported", "--out", "imported")
        imported = self.root / "imported"
        self.assertEqual((imported / "model.safetensors").read_bytes(), (last / "model.safetensors").read_bytes())
        self.assertTrue((imported / "manifest.json").exists())
        self.lathe("verify", "imported")
        self.lathe("export", "--checkpoint", "imported", "--out", "exported", code=2)  # not over what is there

    def test_logits_and_gradients(self):
        for command in ("logits", "gradients"):
            self.lathe(command, "--checkpoint", "reference", "--tokens", "5,6,7", "--out", f"{command}.safetensors")
        logits = ws.read_safetensors(self.root / "logits.safetensors")
        self.assertEqual(logits["logits"][:2], ("F32", [3, ws.CONFIG["vocab_size"]]))
        gradients = ws.read_safetensors(self.root / "gradients.safetensors")
        expected = dict(ws.parameter_shapes(ws.CONFIG), loss=[1])
        self.assertEqual({name: shape for name, (_, shape, _) in gradients.items()}, expected)
        self.assertEqual({dtype for dtype, _, _ in gradients.values()}, {"F32"})

    def test_training_goes_on_from_weights(self):
        self.train("--set", "model.config=reference", "--set", "scheduler.max_lr=0", "--set", "scheduler.min_lr=0",
                   "--set", "optimizer.weight_decay=0", steps=1)
        self.assertEqual((self.folder / "step-00000001/model.safetensors").read_bytes(),
                         (self.reference / f"step-{STEPS:08d}/model.safetensors").read_bytes())

    def test_verify_names_each_bad_file(self):
        self.copy_of_reference()
        self.lathe("verify", self.folder.name)
        flip_byte(self.folder / "step-00000012/model.safetensors")
        (self.folder / "step-00000012/config.json").write_text("{}")
        (self.folder / "step-00000009/state.json").unlink()
        result = self.lathe("verify", self.folder.name, code=1)
        lines = result.err.splitlines()
        self.assertEqual(len(lines), 3, result)
        for name in ("step-00000012/model.safetensors", "step-00000012/config.json", "step-00000009/state.json"):
            self.assertEqual(len([line for line in lines if name in line]), 1, result)
        self.lathe("eval", "--checkpoint", f"{self.folder.name}/step-00000012", "--data", "valid", code=2)
        skipped = self.lathe("eval", "--checkpoint", self.folder.name, "--data", "valid")
        self.assertIn("step-00000006", skipped.out)
        self.assertIn("step-00000012", skipped.err)


if __name__ == "__main__":
    LATHE = str(pathlib.Path(sys.argv.pop(1)).resolve())
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    unittest.main()
