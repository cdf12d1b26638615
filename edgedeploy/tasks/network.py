"""The user's own network in a task kind that brings its data and metrics: ``network = "file.py:make_net"``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgedeploy.errors import SpecError
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
