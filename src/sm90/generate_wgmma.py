#!/usr/bin/env python3
"""Writes wgmma_instructions.cuh: one wrapper a shape and operand source of wgmma.mma_async m64nNk16, bf16 in, fp32 out.

Usage: generate_wgmma.py > wgmma_instructions.cuh     (`generate_wgmma.py --check FILE` fails if FILE is out of date)
"""

import pathlib
import sys

SHAPES = (64, 96, 128, 192, 256)  # N of the kernels

HEAD = """\
// Made by generate_wgmma.py; do not edit. wgmma.mma_async.m64nNk16: D (+)= A B with bf16 operands and fp32 accumulators
// (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions"). N/2 accumulators a thread; `d` may be longer.
// `accumulate` = 0 starts from zero. kTransA, kTransB: 0 where K runs fastest in shared memory, 1 where M or N does.
// clang-format off
#pragma once

#include <cstdint>

namespace lathe::sm90 {
"""


def wrapper(n, a_in_registers):
    count = n // 2
    accumulators = ", ".join(f"%{i}" for i in range(count))
    outputs = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    if a_in_registers:
        name, template = f"wgmma_rs_n{n}", "int kTransB, int kSize"
        signature = "const uint32_t* a"
        operand_a = "{" + ", ".join(f"%{count + i}" for i in range(4)) + "}"
        inputs = [f'"r"(a[{i}])' for i in range(4)]
    else:
        name, template, signature = f"wgmma_ss_n{n}", "int kTransA, int kTransB, int kSize", "uint64_t a"
        operand_a = f"%{count}"
        inputs = ['"l"(a)']
    b = count + len(inputs)
    immediates = ['"n"(kTransB)'] if a_in_registers else ['"n"(kTransA)', '"n"(kTransB)']
    trans = f", %{b + 2}" if a_in_registers else f", %{b + 2}, %{b + 3}"
    inputs += ['"l"(b)', '"r"(accumulate)'] + immediates
    return f"""
template <{template}>
__device__ __forceinline__ void {name}(float (&d)[kSize], {signature}, uint64_t b, int accumulate) {{
  static_assert(kSize >= {count});
  asm volatile(
      "{{\\n"
      ".reg .pred p;\\n"
      "setp.ne.b32 p, %{b + 1}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{accumulators}}}, {operand_a}, %{b}, p, 1, 1{trans};\\n"
      "}}\\n"
      : {outputs}
      : {", ".join(inputs)});
}}
"""


def text():
    return HEAD + "".join(wrapper(n, rs) for n in SHAPES for rs in (False, True)) + "\n}  // namespace lathe::sm90\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        if pathlib.Path(sys.argv[2]).read_text() != text():
            sys.exit(f"{sys.argv[2]} is not what generate_wgmma.py writes")
    else:
        sys.stdout.write(text())
