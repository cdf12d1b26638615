"""Fewer tokens: alike ones are merged before most of the blocks, and get what those blocks changed of them afterwards.

The matching is that of Bolya et al., "Token Merging: Your ViT But Faster", 2023: every second token may join the token most
like it among the others. It is done once, not in every block, so that no shape depends on a block; each token keeps what
is its own and gets the change of its group, so that networks with an answer per place (segmentation) merge too. Products
with a 0/1 matrix do the merging: every runtime has them, unlike scattered sums. Attention does not weigh a group by its
size.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from edgedeploy.compress.shrink.attention import plain_inputs
from edgedeploy.compress.shrink.depth import Skip
from edgedeploy.compress.shrink.given import NO_BLOCKS, Given, refused
from edgedeploy.compress.shrink.parts import Stack, calls_of, first_of, like_answer


def start_of(blocks: int) -> int:
    """How many blocks of a list see all tokens: a third, and at least one. Tokens are alike once they have been mixed."""
    return max(1, blocks // 3)


class MergedBlocks(nn.Module):
    """``blocks`` in a row on merged tokens: the first token stays alone, ``merged`` of the others join another one."""

    def __init__(self, blocks: list[nn.Module], merged: int) -> None:
        super().__init__()
        self.merged_blocks = nn.ModuleList(blocks)
        self.merged = merged

    def forward(self, tokens: torch.Tensor, *others: Any, **named: Any) -> Any:
        groups = groups_of(tokens, self.merged)
        few = groups.transpose(1, 2) @ tokens / groups.sum(1)[:, :, None]
        after, answer = few, None
        for block in self.merged_blocks:
            answer = block(after, *others, **named)
            after = first_of(answer)
        return like_answer(answer, tokens + groups @ (after - few))


def groups_of(tokens: torch.Tensor, merged: int) -> torch.Tensor:
    """Which group each token is in: 0 or 1, (cases, tokens, groups)."""
    unit = F.normalize(tokens.detach(), dim=-1)
    odd, even = unit[:, 1::2], unit[:, 0::2]
    others, total = odd.shape[1], tokens.shape[1]
    alike, nearest = (odd @ even[:, 1:].transpose(1, 2)).max(-1)  # the first token, a class token's place, is nobody's
    order = alike.argsort(dim=-1, descending=True)
    rank = (order[:, :, None] == torch.arange(others)).to(tokens.dtype).argmax(1)  # a token's place in that order
    alone = rank - merged
    place = torch.where(alone >= 0, alone, others - merged + 1 + nearest)
    targets = (others - merged + torch.arange(even.shape[1])).expand(tokens.shape[0], -1)
    places = torch.cat([place, targets], 1)[:, _interleaved(others, total)]
    return (places[:, :, None] == torch.arange(total - merged)).to(tokens.dtype)


def _interleaved(odd: int, total: int) -> torch.Tensor:
    """Where each token stands in a row of the odd ones and then the even ones."""
    at = torch.arange(total)
    return torch.where(at % 2 == 1, at // 2, odd + at // 2)


def fewer_tokens(model: nn.Module, share: float, given: Given) -> None:
    """Merge tokens such that the ``share`` of them is left, in every list of blocks that nothing but tokens goes through."""
    if not given.stacks:
        raise refused("tokens", NO_BLOCKS)
    calls = calls_of(model, given.inputs, [stack.blocks[0] for stack in given.stacks])
    merging = 0
    for stack in given.stacks:
        seen = calls[stack.blocks[0]][0]
        count = int(seen.args[0].shape[1])
        merged = min(round(count * (1.0 - share)), count // 2)
        if len(plain_inputs(seen.args, seen.named)) == 1 and merged > 0 and count > 3:
            _merge(model, stack, merged)
            merging += 1
    if not merging:
        raise refused("tokens", "its blocks take masks or positions beside the tokens, or have too few tokens to merge")


def _merge(model: nn.Module, stack: Stack, merged: int) -> None:
    names = stack.blocks[start_of(len(stack.blocks)) :]
    blocks = [model.get_submodule(name) for name in names]
    for name in names[1:]:
        model.set_submodule(name, Skip(0))
    model.set_submodule(names[0], MergedBlocks(blocks, merged))
