"""What a part found, as a JSON file."""

import datetime
import json
import os
import shlex
import subprocess
import sys


class Mismatch(Exception):
    """What differs, in one line."""


class Report:
    def __init__(self, options):
        self.options = options
        self.results = []

    @property
    def failed(self):
        return not self.results or any(result["status"] != "passed" for result in self.results)

    def run(self, name, body):
        """One check: `body(found)` fills `found` and raises where something is wrong; the next one follows anyway."""
        started = datetime.datetime.now()
        result = {"name": name, "status": "passed"}
        found = {}
        try:
            body(found)
        except (Mismatch, OSError, KeyError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            what = "" if isinstance(error, Mismatch) else f"{type(error).__name__}: "
            result |= {"status": "FAILED", "error": what + " ".join(str(error).split())[:500]}
        result["seconds"] = round((datetime.datetime.now() - started).total_seconds(), 1)
        self.results.append(result | found)
        print(f"{result['status']}: {name}, {result['seconds']} s {result.get('error', '')}", flush=True)
        self.write()  # what comes later may be killed

    def write(self):
        options = self.options
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        report = {"commit": options.commit, "date": date, "command": shlex.join(["python3", *sys.argv]),
                  "device": device_name(options.device), "processors": os.cpu_count(),
                  "passed": not self.failed, "results": self.results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def device_name(device):
    if device == "cpu":
        return "cpu"
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                           capture_output=True, text=True)
    return asked.stdout.strip().splitlines()[0] if asked.stdout.strip() else "cuda"
