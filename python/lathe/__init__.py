"""Lathe from Python: the attention operator for torch, and the C interface (include/lathe/lathe.h) under it."""

import importlib

from .capi import (
    LatheError,
    PreparedCall,
    mla_backend,
    mla_backward,
    mla_backward_workspace_size,
    mla_forward,
    mla_forward_workspace_size,
    prepare_mla_backward,
    prepare_mla_forward,
    version,
)

__all__ = [
    "LatheError",
    "PreparedCall",
    "mla_attention",
    "mla_backend",
    "mla_backward",
    "mla_backward_workspace_size",
    "mla_flash_attn_func",
    "mla_forward",
    "mla_forward_workspace_size",
    "prepare_mla_backward",
    "prepare_mla_forward",
    "version",
]


def __getattr__(name):
    """What needs torch is imported when it is first used."""
    if name in ("mla_attention", "mla_flash_attn_func"):
        return getattr(importlib.import_module(".attention", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
