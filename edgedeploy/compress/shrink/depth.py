"""Fewer blocks: those go first that change their tokens least, by the cosine between what they take and what they give.

Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024. A network's first block
always stays: it takes what no other block takes.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import nn

from edgedeploy.compress.shrink.given import NO_BLOCKS, Given, at_least, refused
from edgedeploy.compress.shrink.moments import Feeds
from edgedeploy.compress.shrink.parts import Stack, first_of, run_watched
from edgedeploy.reference.copies import copied


class Skip(nn.Module):
    """Stands where a block was, and gives what it takes; ``returned`` as :class:`Attention` has it."""

    def __init__(self, returned: int) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, tokens: Any, *others: Any, **named: Any) -> Any:
        return (tokens, *[None] * (self.returned - 1)) if self.returned else tokens


def skipped(model: nn.Module) -> dict[str, Skip]:
    """What stands where blocks were, by the blocks' names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Skip)}


def without(model: nn.Module, blocks: Mapping[str, Skip]) -> nn.Module:
    """A copy of ``model`` in evaluation mode without these blocks."""
    smaller: nn.Module = copied(model)
    for name, skip in blocks.items():
        smaller.set_submodule(name, Skip(skip.returned))
    return smaller.eval()


def fewer_blocks(model: nn.Module, share: float, given: Given) -> None:
    """Keep the ``share`` of the blocks of every list of blocks, rounded down."""
    stacks = given.stacks
    if not stacks:
        raise refused("depth", NO_BLOCKS)
    likeness = {} if given.feeds is None else _likeness(model, stacks, given.feeds)
    forms = _forms(model, stacks, given.inputs)
    removed = 0
    for stack in stacks:
        count = len(stack.blocks) - at_least(share, len(stack.blocks))
        later = stack.blocks[1:]
        if given.feeds is not None:
            gone = sorted(later, key=lambda name: -likeness[name])[:count]
        elif given.names:
            gone = [name for name in later if not _has(given.names, name)]
        else:
            gone = list(later[:count])
        for name in gone:
            model.set_submodule(name, Skip(forms[name]))
            removed += 1
    if not removed:
        raise refused("depth", f"that share leaves all of its {sum(len(stack.blocks) for stack in stacks)} blocks")


def _has(names: Collection[str], block: str) -> bool:
    return any(name.startswith(f"{block}.") for name in names)


def _forms(model: nn.Module, stacks: tuple[Stack, ...], inputs: Any) -> dict[str, int]:
    """How many things each block returns; 0 for a tensor alone."""
    found: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], answer: Any) -> None:
            found[name] = len(answer) if isinstance(answer, tuple) else 0

        return hook

    _watched(model, stacks, watch, lambda: [inputs])
    return found


def _likeness(model: nn.Module, stacks: tuple[Stack, ...], feeds: Feeds) -> dict[str, float]:
    """Mean cosine between a block's tokens before and after it, over all tokens of all cases."""
    sums: dict[str, float] = defaultdict(float)

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], answer: Any) -> None:
            sums[name] += float(F.cosine_similarity(args[0].float(), first_of(answer).float(), dim=-1).mean())

        return hook

    _watched(model, stacks, watch, feeds)
    return sums


def _watched(
    model: nn.Module, stacks: tuple[Stack, ...], watch: Callable[[str], Callable[..., None]], feeds: Feeds
) -> None:
    names = [name for stack in stacks for name in stack.blocks]
    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    run_watched(model, feeds(), handles)
