"""`ops` and `memcheck`: the test program of the CUDA ops, as it is and under compute-sanitizer."""

import collections
import json
import os
import re
import shutil
import signal
import subprocess

from training_check.report import Mismatch


def results_of(path):
    """{test: (result, ms, first failure)} of the JSON that a GoogleTest program wrote."""
    tests = {}
    for suite in json.loads(path.read_text(encoding="utf-8"))["testsuites"]:
        for test in suite["testsuite"]:
            failures = test.get("failures", [])
            ran = test["status"] == "RUN" and test["result"] == "COMPLETED"
            result = "FAILED" if failures else "passed" if ran else "skipped"
            first = " ".join(failures[0]["failure"].split())[:300] if failures else ""
            tests[f"{suite['name']}.{test['name']}"] = result, round(1000 * float(test["time"].rstrip("s"))), first
    return tests


def run_program(command, seconds):
    """(exit code, all that it said). At the limit what it started ends too: compute-sanitizer starts the program."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise Mismatch(f"not done after {seconds} s: {said.strip()[-300:]}") from None
    if process.returncode != 0:
        print(said[-3000:], flush=True)
    return process.returncode, said


def run_ops(options, scratch, found):
    """Every test must have run and passed; a program that found no GPU writes no results."""
    written = scratch / "ops.json"
    code, said = run_program([options.tests, f"--gtest_output=json:{written}", "--gtest_brief=1"], options.seconds)
    if not written.exists():
        raise Mismatch(f"exit code {code} and no results: {said.strip()[-300:]}")
    tests = results_of(written)
    found["counts"] = dict(collections.Counter(result for result, _, _ in tests.values()))
    found["tests"] = {name: {"result": result, "ms": ms} | ({"failure": first} if first else {})
                      for name, (result, ms, first) in tests.items()}
    wrong = [name for name, (result, _, _) in tests.items() if result != "passed"]
    if wrong or not tests or code != 0:
        raise Mismatch(f"exit code {code}, {len(tests)} tests, not passed: {', '.join(wrong) or 'none'}")


def run_memcheck(options, scratch, found):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    written = scratch / "memcheck.json"
    found["filter"] = options.filter
    command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", "--print-limit", "20", options.tests]
    command += [f"--gtest_output=json:{written}", f"--gtest_filter={options.filter}", "--gtest_brief=1"]
    code, said = run_program(command, options.seconds)
    summary = re.findall(r"ERROR SUMMARY: (\d+) errors?", said)
    tests = results_of(written) if written.exists() else {}
    found |= {"errors": int(summary[-1]) if summary else None, "tests": sorted(tests)}
    failed = [name for name, (result, _, _) in tests.items() if result != "passed"]
    if code != 0 or found["errors"] != 0 or not tests or failed:
        raise Mismatch(f"exit code {code}, errors {found['errors']}, {len(tests)} tests ran, "
                       f"not passed: {', '.join(failed) or 'none'}")
