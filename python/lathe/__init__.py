"""Lathe from Python: the C interface (include/lathe/lathe.h) on tensors where they lie."""

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
    "mla_backend",
    "mla_backward",
    "mla_backward_workspace_size",
    "mla_forward",
    "mla_forward_workspace_size",
    "prepare_mla_backward",
    "prepare_mla_forward",
    "version",
]
