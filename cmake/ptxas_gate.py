#!/usr/bin/env python3
"""Compiles a .cu file as nvcc would, and fails where ptxas spilled registers or changed the order of wgmma.

    ptxas_gate.py NVCC ARGUMENT...      CMake's CMAKE_CUDA_COMPILER_LAUNCHER

ptxas reports both in passing and goes on. It is asked for its listing here, which is kept from the output; a compilation
for sm_90a whose listing names no kernel fails too, since nothing was judged.
"""

import pathlib
import re
import shutil
import subprocess
import sys

KERNEL = re.compile(r"ptxas info\s*: Compiling entry function '(\S+)' for 'sm_\w+'")
FUNCTION = re.compile(r"ptxas info\s*: Function properties for (\S+)")
STACK = re.compile(r"\s*\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"ptxas info\s*: Used \d+ registers")
OTHERS = re.compile(r"ptxas info\s*: (\d+ bytes gmem|Compile time = )")
# C7510 to C7519: products one after the other, or waits and arrivals that the source does not hold.
NOTE = re.compile(r"ptxas \w+\s*: \((C75\d\d)\) (.*)")
NOTE_FUNCTION = re.compile(r"function '([^']+)'")


def demangled(name):
    if not shutil.which("c++filt"):
        return name
    return subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()


def judge(output):
    """(lines that are not the listing, [what is wrong], kernels counted) of nvcc's output."""
    rest, faults, noted, kernels, function = [], [], set(), 0, "unknown"
    for line in output.splitlines():
        if match := KERNEL.match(line) or FUNCTION.match(line):
            function = match[1]
        elif match := STACK.match(line):
            if match[1] != "0" or match[2] != "0":
                faults.append(f"{demangled(function)}: {match[1]} bytes of spill stores, {match[2]} of spill loads")
        elif match := NOTE.match(line):
            named = NOTE_FUNCTION.search(match[2])
            name = named[1] if named else function
            if (match[1], name) not in noted:  # one line, however many places it has
                faults.append(f"{demangled(name)}: ({match[1]}) {match[2]}")
            noted.add((match[1], name))
        elif REGISTERS.match(line):
            kernels += 1
        elif not OTHERS.match(line):
            rest.append(line)
    return rest, faults, kernels


def main(command):
    source = next((word for word in command if word.endswith(".cu")), "")
    result = subprocess.run([*command, "-Xptxas=-v"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rest, faults, kernels = judge(result.stdout)
    for line in rest:
        print(line)
    if result.returncode != 0:
        return result.returncode
    if kernels == 0 and source and "-c" in command and any("sm_90a" in word for word in command):
        faults.append("ptxas named no kernel: nothing to judge")
    for fault in faults:
        print(f"ptxas_gate.py: {source}: {fault}")
    if faults and "-o" in command:
        pathlib.Path(command[command.index("-o") + 1]).unlink(missing_ok=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
