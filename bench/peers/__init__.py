"""What Lathe is measured against, one file each: attention kernels, and for the training step `pith_train.py`.

An attention peer has a name, a version and
  forward(shape, sample) -> run(q, k, v, o, lse), which returns (o, lse), lse None where it has none;
  backward(shape, sample, deterministic) -> run(q, k, v, o, lse, do, dq, dk, dv), which writes dq, dk, dv.
q, k, v are concatenated and contiguous, [b, s, h, 192 | 192 | 128]; lse is [b, h, s], fp32, the natural log. What is
compiled or planned is so before `run` is returned or in its first call. Importing a peer's file or making one raises
where the machine lacks it.
"""

import importlib

NAMES = ("fa4", "fa3", "flex", "cudnn", "sdpa")


def load(name, device):
    return importlib.import_module(f"peers.{name}").Peer(device)
