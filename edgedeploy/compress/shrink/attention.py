"""Self-attention with any number of heads, in the place of a layer that ties its heads to the width of its tokens.

``nn.MultiheadAttention`` splits the tokens' features into heads, so it cannot lose one alone; torch-pruning narrows it
together with the tokens. Here the heads have a width of their own, whatever the tokens have.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Attention(nn.Module):
    """Softmax attention among the tokens (cases, tokens, features) that it is given; ``heads`` of equal size.

    - ``qkv``: features -> 3 x heads x size, in the order (queries, keys, values), (heads), (size).
    - ``proj``: heads x size -> features; the identity where another module of the network has that layer.
    - ``returned``: how many things it returns: 0 for the tokens alone, else a tuple of so many whose others are None.

    One further tensor that it is called with is a mask: added to the scores, or true where attention is allowed. Dropout of
    the layer that it stands for is not applied in training.
    """

    def __init__(self, qkv: nn.Linear, proj: nn.Linear | nn.Identity, heads: int, returned: int = 0) -> None:
        super().__init__()
        self.qkv = qkv
        self.proj = proj
        self.heads = heads
        self.returned = returned

    @property
    def size(self) -> int:
        """Features of one head."""
        return int(self.qkv.out_features // (3 * self.heads))

    def forward(self, tokens: torch.Tensor, *others: Any, **named: Any) -> Any:
        masks = [value for value in (*others, *named.values()) if isinstance(value, torch.Tensor)]
        if len(masks) > 1:
            raise ValueError(f"attention takes one mask, but got {len(masks)} tensors besides the tokens")
        answer = self.attend(tokens, masks[0] if masks else None)
        return (answer, *[None] * (self.returned - 1)) if self.returned else answer

    def attend(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        cases, count, _ = tokens.shape
        parts = self.qkv(tokens).view(cases, count, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
        answer: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(cases, count, self.heads * self.size))
        return answer

    def keep_heads(self, kept: list[int]) -> None:
        """Keep these heads alone, in place. Whoever reads their features has to lose the others' columns."""
        rows = head_columns(kept, self.size)
        own = [part * self.heads * self.size + row for part in range(3) for row in rows]
        self.qkv = linear_like(self.qkv, self.qkv.weight[own], None if self.qkv.bias is None else self.qkv.bias[own])
        self.heads = len(kept)


class Multihead(Attention):
    """As ``nn.MultiheadAttention`` is called, with one tensor as query, key and value; it returns no attention weights."""

    in_proj_bias = None
    """Keeps ``nn.TransformerEncoderLayer`` from its fused operator, which reads the weights of ``nn.MultiheadAttention``."""
    _qkv_same_embed_dim = False

    def __init__(self, qkv: nn.Linear, proj: nn.Linear, heads: int, batch_first: bool) -> None:
        super().__init__(qkv, proj, heads)
        self.num_heads = heads
        self.batch_first = batch_first

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        padding = None if key_padding_mask is None else _added(key_padding_mask, query)[:, None, None, :]
        masks = [
            mask for mask in (padding, None if attn_mask is None else _added(attn_mask, query)) if mask is not None
        ]
        tokens = query if self.batch_first else query.transpose(0, 1)
        answer = self.attend(tokens, sum(masks[1:], masks[0]) if masks else None)
        return answer if self.batch_first else answer.transpose(0, 1), None


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What is added to the scores: ``nn.MultiheadAttention`` leaves out where a mask of truth values is true."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype).masked_fill(mask, float("-inf"))


def head_columns(heads: Iterable[int], size: int) -> list[int]:
    """Where the features of these heads stand among those of all heads."""
    return [head * size + place for head in heads for place in range(size)]


def linear_like(like: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer with these numbers, which is trained if ``like`` is."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    made.requires_grad_(like.weight.requires_grad)
    return made.train(like.training)


def of_multihead(layer: nn.MultiheadAttention) -> Multihead | None:
    """The same function with heads of their own; None for keys and values of another size, or of added ones."""
    if not layer._qkv_same_embed_dim or layer.bias_k is not None or layer.add_zero_attn:
        return None
    out = layer.out_proj
    qkv = linear_like(out, layer.in_proj_weight, layer.in_proj_bias)
    return Multihead(qkv, linear_like(out, out.weight, out.bias), layer.num_heads, layer.batch_first)


def guesses(layer: nn.Module, returned: int) -> Iterable[Attention]:
    """What the linear layers of ``layer`` may be together: attention by one layer for queries, keys and values or by three,
    with or without a last layer, in each order of heads and with each number of them that the layer names. Who asks holds
    them against the layer."""
    linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    own = {id(value) for module in linears for value in module.parameters()}
    if any(id(value) not in own for value in layer.parameters()) or len(linears) not in (2, 3, 4):
        return
    given, out = (linears, None) if len(linears) == 3 else (linears[:-1], linears[-1])
    inner = given[0].out_features // 3 if len(given) == 1 else given[0].out_features
    if any((one.in_features, one.out_features) != (given[0].in_features, given[0].out_features) for one in given):
        return
    if out is not None and out.in_features != inner:
        return
    for heads in _head_counts(layer, inner):
        for weight, bias in _fused(given, heads, inner):
            last = nn.Identity() if out is None else linear_like(out, out.weight, out.bias)
            yield Attention(linear_like(given[0], weight, bias), last, heads, returned)


def _head_counts(layer: nn.Module, inner: int) -> list[int]:
    """Whole numbers that the layer has under a name with "head" in it, and that divide its features."""
    found = {
        value: None
        for module in layer.modules()
        for name, value in vars(module).items()
        if "head" in name and type(value) is int and 0 < value <= inner and inner % value == 0
    }
    return list(found)


def _fused(given: list[nn.Linear], heads: int, inner: int) -> Iterable[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias of one layer for queries, keys and values."""
    if len(given) == 3:
        biased = any(one.bias is not None for one in given)
        biases = [one.weight.new_zeros(inner) if one.bias is None else one.bias.detach() for one in given]
        yield torch.cat([one.weight.detach() for one in given]), torch.cat(biases) if biased else None
        return
    weight, bias = given[0].weight, given[0].bias
    yield weight, bias
    order = torch.arange(3 * inner).view(heads, 3, inner // heads).transpose(0, 1).flatten()
    yield weight[order], None if bias is None else bias[order]


def plain_inputs(args: tuple[Any, ...], named: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors among what a layer was called with."""
    return [value for value in (*args, *named.values()) if isinstance(value, torch.Tensor)]
