"""What a network consists of, as a transformer: its self-attention layers and its blocks, found by what modules do.

No class of the user's has to be known. A layer counts as self-attention when :class:`Attention` with its weights answers as
it does, on what it was called with; modules count as blocks when they stand in one list, are of one class, and give tokens
of the shape that they take.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from edgedeploy.compress.shrink.attention import Attention, guesses, of_multihead, plain_inputs
from edgedeploy.reference.calling import call

AGREES: Final = 1e-4
"""Largest difference between a layer and what is taken for it, as a share of the layer's largest output."""

LEAST_LINEARS: Final = 3
"""Linear layers that a block has at least: attention's last one, and an MLP's two."""


@dataclass(frozen=True)
class Stack:
    """Blocks that a list of the network holds, by their names, in the order in which they run."""

    name: str
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """One call of a module."""

    args: tuple[Any, ...]
    named: Mapping[str, Any]
    answer: Any


def first_of(answer: Any) -> Any:
    """The tokens of a block's answer, which may be a tuple that begins with them."""
    return answer[0] if isinstance(answer, tuple) and answer else answer


def like_answer(answer: Any, tokens: torch.Tensor) -> Any:
    """``tokens`` in the form of a block's answer."""
    return (tokens, *answer[1:]) if isinstance(answer, tuple) else tokens


def attentions_of(model: nn.Module, inputs: Any) -> dict[str, Attention]:
    """By the name of each self-attention layer, an equal one with heads of their own, which shares no weight with it.
    ``inputs`` are one case's."""
    asked = {name: module for name, module in model.named_modules() if _may_attend(module)}
    calls = calls_of(model, inputs, list(asked))
    found: dict[str, Attention] = {}
    for name in sorted(asked, key=len, reverse=True):  # a wrapper around attention answers as that does
        inside = any(other.startswith(f"{name}.") for other in found) or _holds_attention(asked[name])
        made = _attention(asked[name], calls[name][0]) if not inside and name in calls else None
        if made is not None:
            found[name] = made
    return {name: found[name] for name in asked if name in found}


def _holds_attention(module: nn.Module) -> bool:
    return any(isinstance(one, Attention) for one in module.modules() if one is not module)


def _may_attend(module: nn.Module) -> bool:
    """Whether it has as many linear layers as attention may; a layer within such a one has fewer."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    return bool(list(module.children())) and sum(isinstance(one, nn.Linear) for one in module.modules()) in (2, 3, 4)


def _attention(layer: nn.Module, seen: Seen) -> Attention | None:
    tensors = plain_inputs(seen.args, seen.named)
    others = seen.answer[1:] if isinstance(seen.answer, tuple) else ()
    answer = first_of(seen.answer)
    if not tensors or not isinstance(answer, torch.Tensor) or tensors[0].ndim != 3:
        return None
    if isinstance(layer, nn.MultiheadAttention):
        if len(tensors) < 3 or not tensors[0] is tensors[1] is tensors[2]:
            return None
        made: Attention | None = of_multihead(layer)
        return made if made is not None and _agrees(made, seen, answer) else None
    if any(value is not None for value in others):
        return None
    returned = len(others) + 1 if isinstance(seen.answer, tuple) else 0
    return next((made for made in guesses(layer, returned) if _agrees(made, seen, answer)), None)


def _agrees(made: Attention, seen: Seen, answer: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            found = first_of(made.eval()(*seen.args, **seen.named))
    except (RuntimeError, TypeError, ValueError, IndexError):  # it was called as this layer is not
        return False
    if found.shape != answer.shape:
        return False
    return bool((found - answer).abs().max() <= AGREES * answer.abs().max())


def stacks_of(model: nn.Module, inputs: Any) -> tuple[Stack, ...]:
    """Lists of at least two blocks, none inside a block of another. ``inputs`` are one case's."""
    lists = {
        name: [f"{name}.{key}" if name else key for key in module._modules]
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1 and _alike(module)
    }
    calls = calls_of(model, inputs, [block for blocks in lists.values() for block in blocks])
    found: list[Stack] = []
    for name, blocks in lists.items():
        inside = any(name.startswith(f"{block}.") for stack in found for block in stack.blocks)
        if not inside and all(_keeps_tokens(calls.get(block, ())) for block in blocks):
            found.append(Stack(name, tuple(blocks)))
    return tuple(found)


def _alike(modules: nn.ModuleList | nn.Sequential) -> bool:
    linears = [sum(isinstance(one, nn.Linear) for one in module.modules()) for module in modules]
    return len({type(module) for module in modules}) == 1 and min(linears) >= LEAST_LINEARS


def _keeps_tokens(seen: Sequence[Seen]) -> bool:
    if len(seen) != 1 or not (tensors := plain_inputs(seen[0].args, {})):
        return False
    answer = first_of(seen[0].answer)
    shaped = isinstance(answer, torch.Tensor) and answer.shape == tensors[0].shape
    return shaped and answer.ndim == 3 and seen[0].args[0] is tensors[0]


def calls_of(model: nn.Module, inputs: Any, names: Sequence[str]) -> dict[str, list[Seen]]:
    """The calls of these modules in one forward pass."""
    found: dict[str, list[Seen]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
            found.setdefault(name, []).append(Seen(args, named, answer))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True) for name in names]
    run_watched(model, [inputs], handles)
    return found


def run_watched(model: nn.Module, cases: Iterable[Any], hooks: Sequence[RemovableHandle]) -> None:
    """Run ``model`` on the inputs of each case, in evaluation mode and without torch's fused operators, which call no
    module; then remove the ``hooks`` that watch it."""
    try:
        with torch.no_grad(), unfused():
            for inputs in cases:
                call(model.eval(), inputs)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def unfused() -> Iterator[None]:
    """Without the fused operator of ``nn.TransformerEncoderLayer``."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
