"""Bad input as a user meets it: exit code 2, one line that names what is wrong, nothing written, little memory.

    python3 cli_test.py LATHE

The cases are the table in bad_input_cases.py.
"""

import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import workspace as ws
from bad_input_cases import CASES, EVAL, LOGITS, TRAIN

LATHE = ""
PEAK_LIMIT_KIB = 200 * 1024


class BadInputTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.template = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.template.cleanup)
        ws.make_workspace(cls.template.name)

    def check(self, change, command, words):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name) / "workspace"
            shutil.copytree(self.template.name, folder)
            change(folder)
            before = ws.snapshot(folder)
            result = ws.run(LATHE, command, folder)
            self.assertEqual(result.code, 2, result)
            self.assertEqual(result.out, "", result)
            self.assertRegex(result.err, r"\Alathe: error: [^\n]*\n\Z", result)
            self.assertLess(len(result.err), 4000, result)
            self.assertNotRegex(result.err, r"filesystem error|std::|basic_string|what\(\)|terminate")
            for word in words:
                self.assertIn(word, result.err)
            self.assertEqual(ws.snapshot(folder), before, "something was written")
            self.assertLess(result.peak_kib, PEAK_LIMIT_KIB, result)


def add_cases():
    names = set()
    for title, change, command, words in CASES:
        name = "test_" + "".join(c if c.isalnum() else "_" for c in title)
        assert name not in names, title
        names.add(name)
        setattr(
            BadInputTest,
            name,
            lambda self, change=change, command=command, words=words: self.check(change, command, words),
        )


class GoodInputTest(unittest.TestCase):
    """What the cases above start from is good, so that each is refused for its own fault."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = ws.make_workspace(self.temporary.name)

    def test_commands_of_the_cases_work(self):
        for command in (TRAIN, EVAL, LOGITS, ["gradients", *LOGITS[1:]]):
            result = ws.run(LATHE, command, self.folder)
            self.assertEqual(result.code, 0, result)
            self.assertEqual(result.err, "", result)

    def test_help_version_and_info(self):
        for command in (["--help"], ["train", "--help"], ["data", "stats", "--help"],
                        ["bench", "attention", "--help"], ["bench", "step", "--help"], ["--version"], ["info"]):
            result = ws.run(LATHE, command, self.folder)
            self.assertEqual(result.code, 0, result)
            self.assertNotEqual(result.out, "")
            self.assertEqual(result.err, "")
        self.assertRegex(ws.run(LATHE, ["--version"], self.folder).out, r"\Alathe \d+\.\d+\.\d+\n\Z")
        info = ws.run(LATHE, ["info"], self.folder).out
        for word in ("lathe ", "build: ", "threads", "matrix products", "backend cpu: available", "sm90", "cudnn"):
            self.assertIn(word, info)

    def test_bench_attention(self):
        command = ["bench", "attention", "--device", "cpu", "--shapes", "1x33,2x16:full", "--heads", "1"]
        result = ws.run(LATHE, command, self.folder)
        self.assertEqual((result.code, result.err), (0, ""), result)
        rows = [json.loads(line) for line in result.out.splitlines()]
        found = {(row["seqlen"], row["pass"], row["dtype"], row["regime"]) for row in rows}
        expected = set(itertools.product((33, 16), ("forward", "backward", "backward_deterministic"), ("bf16", "f32"),
                                         ("burst", "sustained")))
        self.assertEqual((found, len(rows)), (expected, len(expected)))
        for row in rows:
            self.assertEqual((row["scope"], row["impl"], row["backend"]), ("operator", "lathe", "cpu"))
            self.assertEqual((row["batch"], row["causal"]), (1, True) if row["seqlen"] == 33 else (2, False))
            self.assertEqual((row["heads"], row["clock_mhz"]), (1, None))
            flops = 2 * row["batch"] * row["seqlen"] ** 2 * 320 / (2 if row["causal"] else 1)
            flops *= 1 if row["pass"] == "forward" else 2.5
            self.assertGreater(row["median_us"], 0)
            self.assertAlmostEqual(row["tflops"] * row["median_us"] * 1e6 / flops, 1)

    def test_bench_attention_of_one_kind(self):
        command = ["bench", "attention", "--device", "cpu", "--backend", "cpu", "--shapes", "1x8", "--pass", "forward",
                   "--regime", "burst"]
        result = ws.run(LATHE, command, self.folder)
        self.assertEqual([json.loads(line)["dtype"] for line in result.out.splitlines()], ["bf16", "f32"], result)

    def test_a_reader_that_leaves_is_no_crash(self):
        command = [LATHE, "generate", "--checkpoint", "model", "--prompt", "a", "--max-tokens", "100"]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        self.assertEqual((process.wait(timeout=60), error), (0, b""))

    def test_a_full_disk_is_an_error(self):
        if not pathlib.Path("/dev/full").exists():
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            result = subprocess.run([LATHE, "info"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr.decode(), r"\Alathe: error: [^\n]*\n\Z")

    def test_paths_of_the_file_and_of_set(self):
        (self.folder / "elsewhere").mkdir()
        command = ["train", "--config", "../run.toml", "--set", "checkpoint.directory=out", "--set",
                   "training.max_steps=1"]
        result = ws.run(LATHE, command, self.folder / "elsewhere")
        self.assertEqual(result.code, 0, result)
        self.assertTrue((self.folder / "elsewhere/out/step-00000001").is_dir())


if __name__ == "__main__":
    LATHE = str(pathlib.Path(sys.argv.pop(1)).resolve())
    add_cases()
    unittest.main()
