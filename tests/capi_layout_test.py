#!/usr/bin/env python3
"""The ctypes structures of python/lathe/capi.py against include/lathe/lathe.h, as the C compiler lays it out.

Sizes, the offset and size of every field, their order, and the values of the enums. Exits 1 on a difference.
"""

import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))
from lathe import capi  # noqa: E402

STRUCTURES = {
    "lathe_tensor": capi.Tensor,
    "lathe_mla_forward_args": capi.MlaForwardArgs,
    "lathe_mla_backward_args": capi.MlaBackwardArgs,
}
ENUMERATORS = {
    **{name: value for value, name in enumerate(capi.STATUS)},
    "LATHE_F32": capi.DTYPES["float32"],
    "LATHE_F64": capi.DTYPES["float64"],
    "LATHE_BF16": capi.DTYPES["bfloat16"],
    "LATHE_I32": capi.DTYPES["int32"],
    "LATHE_CPU": capi.DEVICES["cpu"],
    "LATHE_CUDA": capi.DEVICES["cuda"],
}


def expected():
    lines = [f"{name} {value}" for name, value in ENUMERATORS.items()]
    for name, structure in STRUCTURES.items():
        lines.append(f"{name} {ctypes.sizeof(structure)}")
        for field, _ in structure._fields_:
            at = getattr(structure, field)
            lines.append(f"{name}.{field} {at.offset} {at.size}")
    return lines


def compiled():
    prints = [f'printf("{name} %d\\n", (int){name});' for name in ENUMERATORS]
    for name, structure in STRUCTURES.items():
        prints.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in structure._fields_:
            size = f"sizeof((({name} *)0)->{field})"
            prints.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
    lines = ["#include <stdio.h>", '#include "lathe/lathe.h"', "int main(void) {", *prints, "return 0;", "}"]
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder, "layout.c"), pathlib.Path(folder, "layout")
        source.write_text("\n".join(lines) + "\n")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-std=c11", f"-I{ROOT / 'include'}", source, "-o", binary], check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout.splitlines()


def header_enumerators():
    """All that the header defines, so that one added there is missed here."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "include/lathe/lathe.h").read_text(), flags=re.S)
    return set(re.findall(r"\b(LATHE_\w+) = \d+", text))


def main():
    wrong = [f"capi.py: {ours}; lathe.h: {theirs}" for ours, theirs in zip(expected(), compiled()) if ours != theirs]
    wrong += [f"{name} stands in only one of the two" for name in sorted(header_enumerators() ^ set(ENUMERATORS))]
    print("\n".join(wrong) or f"{len(expected())} sizes, offsets and values agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
