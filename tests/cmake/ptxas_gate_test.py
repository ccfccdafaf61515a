"""cmake/ptxas_gate.py on what nvcc 13.0 printed: clean, spilled, serialized, nothing."""

import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

GATE = pathlib.Path(__file__).resolve().parent.parent.parent / "cmake/ptxas_gate.py"

CLEAN = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z9zero_rowsPfi' for 'sm_90a'
ptxas info    : Function properties for _Z9zero_rowsPfi
    112 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 0 barriers, 112 bytes cumulative stack size
ptxas info    : Compile time = 31.290 ms
"""
SPILL = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5spillPfi' for 'sm_90a'
ptxas info    : Function properties for _Z5spillPfi
    272 bytes stack frame, 536 bytes spill stores, 564 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 272 bytes cumulative stack size
ptxas info    : Compile time = 37.865 ms
"""
SERIALIZED = """\
ptxas info    : (C7519) warpgroup.arrive is injected in around line 156 by compiler to allow use of registers in GMMA \
in function '_Z3badPfmmi'
ptxas info    : (C7519) warpgroup.arrive is injected in around line 167 by compiler to allow use of registers in GMMA \
in function '_Z3badPfmmi'
ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient \
register resources for the wgmma pipeline in the function '_Z3badPfmmi'
"""
EMPTY = "ptxas info    : 0 bytes gmem\n"
WARNING = "kernel.cu(3): warning #177-D: variable \"x\" was declared but never referenced\n"


def run(printed, code=0, arguments=("-gencode=arch=compute_90a,code=sm_90a", "-c", "kernel.cu", "-o", "kernel.o")):
    """The gate around a compiler that prints `printed`; returns (exit code, output)."""
    with tempfile.TemporaryDirectory() as folder:
        listing, nvcc = pathlib.Path(folder, "listing"), pathlib.Path(folder, "nvcc")
        listing.write_text(printed)
        pathlib.Path(folder, "kernel.o").touch()
        nvcc.write_text(f"#!/bin/sh\ncase \"$*\" in *-Xptxas=-v*) ;; *) exit 9 ;; esac\ncat {listing} >&2\nexit {code}\n")
        nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
        result = subprocess.run([sys.executable, GATE, nvcc, *arguments], capture_output=True, text=True,
                                cwd=folder, check=False)
        assert result.stderr == "", result.stderr
        if result.returncode == 1:
            assert not pathlib.Path(folder, "kernel.o").exists(), "the object of a failed compilation is there"
        return result.returncode, result.stdout


class GateTest(unittest.TestCase):
    def test_a_clean_listing_is_silent(self):
        self.assertEqual(run(CLEAN), (0, ""))

    def test_other_lines_pass(self):
        self.assertEqual(run(WARNING + CLEAN), (0, WARNING))

    def test_a_spill_fails(self):
        code, out = run(CLEAN + SPILL + CLEAN)
        self.assertEqual(code, 1)
        self.assertRegex(out, r"\Aptxas_gate.py: kernel.cu: \S*spill.*: 536 bytes of spill stores, 564 of spill loads\n\Z")

    def test_a_serialized_product_fails(self):
        code, out = run(SERIALIZED + CLEAN)
        self.assertEqual(code, 1)
        self.assertEqual([line.split("(C")[1][:4] for line in out.splitlines()], ["7519", "7511"])
        for line in out.splitlines():
            self.assertRegex(line, r"\Aptxas_gate.py: kernel.cu: \S*bad.*: \(C75\d\d\) ")

    def test_no_kernel_fails(self):
        for printed in ("", EMPTY):
            code, out = run(printed)
            self.assertEqual((code, out), (1, "ptxas_gate.py: kernel.cu: ptxas named no kernel: nothing to judge\n"))

    def test_a_host_file_needs_no_kernel(self):
        self.assertEqual(run(EMPTY, arguments=("-c", "kernel.cu", "-o", "kernel.o")), (0, ""))

    def test_the_compilers_error_is_the_result(self):
        self.assertEqual(run(WARNING, code=2), (2, WARNING))


if __name__ == "__main__":
    unittest.main()
