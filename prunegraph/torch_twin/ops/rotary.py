"""Rotary positions (arXiv 2104.09864), and the attention of ONNX Runtime that has them built in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.attention import added, attend, heads_first, heads_last, hidden
from prunegraph.torch_twin.registry import MICROSOFT, StatedLengths, integers, torch_op


def rotated(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """`[batch, heads, positions, width]` with its first slots turned by tables `[batch, positions, pairs]`."""
    width = 2 * cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    pairs = (cos * a - sin * b, sin * a + cos * b)
    y = torch.stack(pairs, -1).flatten(-2) if interleaved else torch.cat(pairs, -1)
    return torch.cat((y, rest), -1) if rest.shape[-1] else y


@torch_op("RotaryEmbedding")
def rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """ai.onnx: data, cosines, sines, positions."""
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    flat = x.dim() == 3
    y = rotated(heads_first(x, num_heads) if flat else x, cos, sin, bool(interleaved))
    return heads_last(y) if flat else y


@torch_op("RotaryEmbedding", domain=MICROSOFT)
def microsoft_rotary(
    x: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """com.microsoft: data, positions (of every token, or of the first one), cosines, sines."""
    length = x.shape[-2]
    at = positions.long()
    if at.dim() == 1:
        at = at + torch.arange(length, device=x.device)[None]
    heads = num_heads or (x.shape[-1] // (2 * cos.shape[-1]))
    return rotary(x, cos, sin, at, interleaved=interleaved, num_heads=heads)


@torch_op("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    seqlens_k: Tensor,
    total_sequence_length: StatedLengths,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    head_sink: Tensor | None = None,
    *,
    causal: int = 1,
    do_rotary: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float = 0.0,
    smooth_softmax: int = -1,
    softcap: float = 0.0,
) -> tuple[Tensor, ...]:
    """com.microsoft: query heads `g·r` over `g` heads of keys and values; `seqlens_k` counts the tokens but one."""
    if key is None or value is None:
        width = query.shape[-1] // (num_heads + 2 * kv_num_heads)
        query, key, value = query.split([num_heads * width, kv_num_heads * width, kv_num_heads * width], -1)
    q, k, v = heads_first(query, num_heads), heads_first(key, kv_num_heads), heads_first(value, kv_num_heads)
    length = q.shape[2]
    (total,) = integers(total_sequence_length)
    counts = seqlens_k.reshape(-1).long() + 1
    before = (counts - length).clamp(min=0)
    at = before[:, None] + torch.arange(length, device=q.device)
    if do_rotary:
        assert cos_cache is not None and sin_cache is not None
        where = at
        if position_ids is not None:  # of a prompt ONNX Runtime reads the first one alone
            first = length == total
            where = position_ids.reshape(-1)[:1].long() + at if first else position_ids.long()
        where = where.clamp(max=len(cos_cache) - 1)
        q, k = (rotated(x, cos_cache[where], sin_cache[where], bool(rotary_interleaved)) for x in (q, k))
    k, v = (
        _appended(past_key, k, before, total),
        _appended(past_value, v, before, total),
    )
    slots = torch.arange(k.shape[2], device=q.device)
    allowed = slots < counts[:, None, None]
    if causal:
        allowed = allowed & (slots <= at[:, :, None])
    if local_window_size >= 0:
        allowed = allowed & (slots > at[:, :, None] - local_window_size)
    bias = added(hidden(allowed)[:, None], None if attention_bias is None else attention_bias[..., : k.shape[2]])
    sink = q.new_zeros(num_heads) if head_sink is None and smooth_softmax > 0 else head_sink
    return heads_last(attend(q, k, v, bias, scale=scale, softcap=softcap, sink=sink).values), k, v


def _appended(past: Tensor | None, new: Tensor, before: Tensor, total: int) -> Tensor:
    """The cache `[batch, heads, slots, width]` with the new tokens behind those of every sequence."""
    length = max(total, new.shape[2] if past is None else past.shape[2])
    if past is None:
        past = new.new_zeros(*new.shape[:2], 0, new.shape[3])
    room = functional.pad(past, (0, 0, 0, length - past.shape[2]))
    at = (before[:, None] + torch.arange(new.shape[2], device=new.device)).clamp(max=length - 1)
    return room.scatter(2, at[:, None, :, None].expand(new.shape), new)
