"""The attention operator for torch: differentiable, and one opaque node to torch.compile.

Nothing is copied, expanded or made contiguous on the way: slices of projections go in as they lie.
"""

from typing import Optional

import torch
from torch import Tensor

from . import capi


def mla_attention(q_nope, q_pe, k_nope, k_pe, v, softmax_scale, causal=True, cu_seqlens_q=None, cu_seqlens_k=None,
                  deterministic=None, return_lse=False):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434) on split inputs; returns o, or (o, lse).

    scores = softmax_scale * (q_nope k_nope^T + q_pe k_pe^T), o = softmax(scores) v, lse = log(sum(exp(scores))).

    q_nope [b, s_q, h, dn], q_pe [b, s_q, h, dr], k_nope [b, s_k, h, dn], k_pe [b, s_k, 1, dr] (one head, shared by
    all), v [b, s_k, h, dv] -> o [b, s_q, h, dv] contiguous, lse [b, h, s_q] fp32 (fp64 of fp64).
    Packed sequences: the same without b over the total of all tokens, and cu_seqlens_q, cu_seqlens_k [n + 1] int32 on
    the same device; lse [h, total_q].

    Any strides with the last dimension contiguous; on a GPU bf16, head sizes 128 + 64 and 128, pointers and strides of
    multiples of 16 bytes. Causal is aligned to the end: query i sees keys j <= i + s_k - s_q. A row that sees no key
    has o = 0, lse = -inf and gradients 0. `deterministic`: gradients of equal bits in every run; by default what
    torch.use_deterministic_algorithms says. Differentiable once, in all five inputs, through o and lse. Raises
    LatheError with the values that clash.
    """
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    o, lse = torch.ops.lathe.mla_attention_forward(q_nope, q_pe, k_nope, k_pe, v, cu_seqlens_q, cu_seqlens_k,
                                                   softmax_scale, causal, deterministic)
    return (o, lse) if return_lse else o


def mla_flash_attn_func(q_nope, q_pe, k_nope, k_pe, v, softmax_scale, qk_nope_head_dim, causal):
    """mla_attention under the name and arguments of the operator of mlc-ai/pith-train."""
    if q_nope.shape[-1] != qk_nope_head_dim:
        raise ValueError(f"qk_nope_head_dim is {qk_nope_head_dim}, but q_nope has {q_nope.shape[-1]} columns")
    return mla_attention(q_nope, q_pe, k_nope, k_pe, v, softmax_scale, causal)


def _outputs(q_nope, v, cu_seqlens_q):
    stats = torch.float64 if q_nope.dtype == torch.float64 else torch.float32
    tokens, heads = q_nope.shape[:-2], q_nope.shape[-2]
    lse = (heads, *tokens) if cu_seqlens_q is not None else (tokens[0], heads, *tokens[1:])
    return q_nope.new_empty((*tokens, heads, v.shape[-1])), q_nope.new_empty(lse, dtype=stats)


def _gradients(*inputs):
    return tuple(torch.empty_like(x) for x in inputs)


@torch.library.custom_op("lathe::mla_attention_forward", mutates_args=())
def _forward(q_nope: Tensor, q_pe: Tensor, k_nope: Tensor, k_pe: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor],
             cu_seqlens_k: Optional[Tensor], softmax_scale: float, causal: bool,
             deterministic: bool) -> tuple[Tensor, Tensor]:
    o, lse = _outputs(q_nope, v, cu_seqlens_q)
    capi.mla_forward(q_nope, q_pe, k_nope, k_pe, v, o, lse, softmax_scale=softmax_scale, causal=causal,
                     cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    return o, lse


@_forward.register_fake
def _(q_nope, q_pe, k_nope, k_pe, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal, deterministic):
    return _outputs(q_nope, v, cu_seqlens_q)


@torch.library.custom_op("lathe::mla_attention_backward", mutates_args=())
def _backward(do: Tensor, dlse: Optional[Tensor], q_nope: Tensor, q_pe: Tensor, k_nope: Tensor, k_pe: Tensor,
              v: Tensor, o: Tensor, lse: Tensor, cu_seqlens_q: Optional[Tensor], cu_seqlens_k: Optional[Tensor],
              softmax_scale: float, causal: bool,
              deterministic: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = _gradients(q_nope, q_pe, k_nope, k_pe, v)
    capi.mla_backward(q_nope, q_pe, k_nope, k_pe, v, o, lse, _in_rows(do), *gradients, softmax_scale=softmax_scale,
                      causal=causal, deterministic=deterministic, dlse=None if dlse is None else dlse.contiguous(),
                      cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    return gradients


@_backward.register_fake
def _(do, dlse, q_nope, q_pe, k_nope, k_pe, v, *rest):
    return _gradients(q_nope, q_pe, k_nope, k_pe, v)


def _in_rows(do):
    """As the library reads it: what comes from a sum is one number with strides of 0, say."""
    size = do.element_size()
    in_rows = do.stride(-1) == 1 and all(stride * size % 16 == 0 for stride in do.stride()[:-1])
    return do if in_rows and do.data_ptr() % 16 == 0 else do.contiguous()


def _save(ctx, inputs, output):
    *tensors, ctx.softmax_scale, ctx.causal, ctx.deterministic = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, do, dlse):
    *tensors, cu_seqlens_q, cu_seqlens_k, o, lse = ctx.saved_tensors
    if do is None and dlse is None:
        return (None,) * 10
    if do is None:
        do = torch.zeros_like(o)
    gradients = torch.ops.lathe.mla_attention_backward(do, dlse, *tensors, o, lse, cu_seqlens_q, cu_seqlens_k,
                                                       ctx.softmax_scale, ctx.causal, ctx.deterministic)
    return *gradients, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
