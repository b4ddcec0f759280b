"""Fused attention: what ai.onnx and ONNX Runtime keep in one op, spelt out as two products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.registry import MICROSOFT, torch_op


def heads_first(x: Tensor, heads: int) -> Tensor:
    """`[batch, positions, heads·width]` as `[batch, heads, positions, width]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def heads_last(x: Tensor) -> Tensor:
    """`[batch, heads, positions, width]` as `[batch, positions, heads·width]`."""
    return x.transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class Attended:
    """What attention makes, and the scores on the way: scaled, capped, with mask and bias, as probabilities."""

    values: Tensor
    scaled: Tensor
    capped: Tensor
    biased: Tensor
    probabilities: Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    *,
    scale: float | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
) -> Attended:
    """Softmax of `q·k` times `v`, all `[batch, heads, positions, width]`; fewer heads of keys and values are shared.

    A query that may see no key at all makes zeros.  `sink` is a score a head that takes its share of the softmax.
    """
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scaled = (q @ k.transpose(-1, -2)) * (scale or 1 / math.sqrt(q.shape[-1]))
    capped = softcap * torch.tanh(scaled / softcap) if softcap else scaled
    if bias is None:
        biased, blind = capped, None
    else:
        blind = torch.isneginf(bias).all(-1, keepdim=True)
        biased = capped + torch.where(blind, 0.0, bias)
    if sink is None:
        p = torch.softmax(biased, -1)
    else:
        column = sink.reshape(-1, 1, 1).expand(*biased.shape[:-1], 1)
        p = torch.softmax(torch.cat((biased, column), -1), -1)[..., :-1]
    p = p if blind is None else torch.where(blind, 0.0, p)
    return Attended(p @ v, scaled, capped, biased, p)


def added(*biases: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    there = [bias for bias in biases if bias is not None]
    return sum(there[1:], there[0]) if there else None


def joined(past: Tensor | None, new: Tensor) -> Tensor:
    """A cache with new positions behind it."""
    return new if past is None else torch.cat((past, new), 2)


def hidden(allowed: Tensor, amount: float = -math.inf) -> Tensor:
    """Zero where a key may be seen, `amount` elsewhere."""
    return torch.where(allowed, 0.0, amount)


@torch_op("Attention")
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int = 0,
) -> tuple[Tensor, ...]:
    """ai.onnx: query heads `g·r` over `g` heads of keys and values, each with a width of its own."""
    flat = q.dim() == 3
    if flat:
        q, k, v = heads_first(q, q_num_heads), heads_first(k, kv_num_heads), heads_first(v, kv_num_heads)
    k, v = joined(past_key, k), joined(past_value, v)
    bias = None
    if mask is not None:
        bias = hidden(mask) if mask.dtype == torch.bool else mask
        bias = functional.pad(bias, (0, k.shape[2] - bias.shape[-1]), value=-math.inf)
    keys = torch.arange(k.shape[2], device=q.device)
    before = torch.tensor(0 if past_key is None else past_key.shape[2], device=q.device)
    if lengths is not None:
        bias = added(bias, hidden(keys < lengths.reshape(-1, 1, 1, 1)))
        before = (lengths.reshape(-1, 1, 1, 1) - q.shape[2]) if past_key is None else before
    ahead = keys - torch.arange(q.shape[2], device=q.device)[:, None] - before
    right = min((n for n in (0 if is_causal else -1, right_window_size) if n >= 0), default=-1)
    if right >= 0:
        bias = added(bias, hidden(ahead <= right))
    if left_window_size >= 0:
        bias = added(bias, hidden(-ahead <= left_window_size))
    y = attend(q, k, v, bias, scale=scale, softcap=softcap)
    scores = (y.scaled, y.capped, y.biased, y.probabilities)[qk_matmul_output_mode]
    return heads_last(y.values) if flat else y.values, k, v, scores


@torch_op("Attention", domain=MICROSOFT)
def fused_qkv(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft: one weight `[inputs, h·d + h·d + h·v]` makes Q, K and V."""
    qkv = x @ weights if bias is None else x @ weights + bias
    widths = list(qkv_hidden_sizes or [weights.shape[1] // 3] * 3)
    q, k, v = (heads_first(part, num_heads) for part in qkv.split(widths, -1))
    k, v = (k, v) if past is None else (joined(past[0], k), joined(past[1], v))
    masked = added(padding(mask, q, k, mask_filter_value), _causal(q, k) if unidirectional else None, attention_bias)
    y = heads_last(attend(q, k, v, masked, scale=scale).values)
    return y, torch.stack((k, v)) if k.shape == v.shape else k


def _causal(q: Tensor, k: Tensor) -> Tensor:
    """Keys behind the query itself are hidden, by the lowest number, so that no row is hidden whole."""
    past = k.shape[2] - q.shape[2]
    keys, queries = torch.arange(k.shape[2], device=q.device), torch.arange(q.shape[2], device=q.device)
    return hidden(keys <= queries[:, None] + past, torch.finfo(q.dtype).min)


def padding(mask: Tensor | None, q: Tensor, k: Tensor, amount: float) -> Tensor | None:
    """A mask in one of the spellings of com.microsoft as `[batch, 1, queries or 1, keys]`.

    `[batch]` counts keys, `[2·batch]` are ends and then starts, `[batch, keys]` and `[batch, queries, keys]` are zero
    where a key is hidden, and `[batch, 1, longest, longest]` is so for a whole text of which this is the end.
    """
    if mask is None:
        return None
    keys, queries = k.shape[2], q.shape[2]
    if mask.dim() == 1:
        at = torch.arange(keys, device=mask.device)
        ends, starts = mask[: len(q), None], mask[len(q) : 2 * len(q), None]
        allowed = (at < ends) & (at >= starts) if len(mask) == 2 * len(q) else at < ends
        return hidden(allowed, amount)[:, None, None]
    if mask.dim() == 4:
        return hidden(mask[:, :, keys - queries : keys, :keys] != 0, amount)
    return hidden(mask != 0, amount)[:, None, None] if mask.dim() == 2 else hidden(mask != 0, amount)[:, None]


@torch_op("MultiHeadAttention", domain=MICROSOFT)
def multi_head(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[Tensor, ...]:
    """com.microsoft: Q, K, V apart, K and V packed `[…, h, 2, d]`, or all packed `[…, h, 3, d]`; bias `q | k | v`."""
    ready = key is not None and key.dim() == 4
    if query.dim() == 5:
        query, key, value = (part.flatten(2) for part in query.unbind(3))
    elif key is not None and key.dim() == 5:
        key, value = (part.flatten(2) for part in key.unbind(3))
    assert key is not None and value is not None
    if bias is not None:
        widths = [query.shape[-1], query.shape[-1], len(bias) - 2 * query.shape[-1]]
        of_q, of_k, of_v = bias.split(widths)
        query = query + of_q
        key, value = (key, value) if ready else (key + of_k, value + of_v)
    q = heads_first(query, num_heads)
    k, v = (key, value) if ready else (heads_first(key, num_heads), heads_first(value, num_heads))
    k, v = joined(past_key, k), joined(past_value, v)
    masked = padding(key_padding_mask, q, k, mask_filter_value)
    masked = added(masked, _causal(q, k) if unidirectional else None, attention_bias)
    y = attend(q, k, v, masked, scale=scale)
    return heads_last(y.values), k, v, y.biased
