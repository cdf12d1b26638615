"""The user's own network in a task kind that brings its data and metrics: ``network = "file.py:make_net"``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Array
from edgedeploy.interfaces.their_code import their_code

Maker = Callable[..., Any]


def build_network(maker: Maker, offered: Mapping[str, Any], seed: int) -> Any:
    """What ``maker`` makes of those of ``offered`` that it takes, seeded. Raises ``SpecError``."""
    import torch

    asked = f"task.options.network ({getattr(maker, '__name__', 'network')})"
    try:
        parameters = inspect.signature(maker).parameters.values()
    except ValueError as exc:
        raise SpecError(asked, f"what it takes cannot be seen ({exc})", "Name a Python function") from None
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters)
    known = {item.name for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)}
    needed = [
        item.name
        for item in parameters
        if item.default is item.empty and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    ]
    lacking = [name for name in needed if name not in offered]
    if lacking:
        raise SpecError(asked, f"it needs {', '.join(lacking)}", f"A network is offered: {', '.join(offered)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with their_code(maker, asked):
            network = maker(**{name: value for name, value in offered.items() if takes_all or name in known})
    if not isinstance(network, torch.nn.Module):
        raise SpecError(asked, f"it made {type(network).__name__}", "Return a torch.nn.Module")
    return network


def answered_maps(outputs: Mapping[str, Array], channels: tuple[int, ...], axes: int) -> npt.NDArray[np.float32]:
    """The first output: one of ``channels`` maps along ``axes`` axes, (1, C, ...). Raises ``SpecError`` for any other."""
    maps = np.asarray(next(iter(outputs.values())), np.float32)
    if maps.ndim != axes + 2 or len(maps) != 1 or maps.shape[1] not in channels:
        wanted = " or ".join(map(str, channels))
        remedy = f"Make it with out_channels = {channels[-1]}, which the function is offered"
        raise SpecError(f"a network's output of (1, {wanted}, ...)", f"its shape is {maps.shape}", remedy)
    return maps


def logit_channels(classes: int) -> tuple[int, ...]:
    """How many maps of logits stand for so many classes: one each behind one for background; of a single class also one
    alone."""
    return (1, 2) if classes == 1 else (classes + 1,)


def with_background(logits: Any) -> Any:
    """Logits (N, C, ...) of background and classes: a single one is of the class, against 0 for background."""
    import torch

    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
