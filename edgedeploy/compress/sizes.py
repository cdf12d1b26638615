"""How large an architecture is, found without running it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from edgedeploy.interfaces.task import ReadyMade, Task
from edgedeploy.records.variant import Scalar

LOG: Final = logging.getLogger(__name__)


def size_of(task: Task, arch: Mapping[str, Scalar]) -> Mapping[str, float]:
    """Parameters of the model that the task builds, and multiply-accumulates of one inference where its forward can be
    followed by shapes alone. Empty for a task that builds no model, or whose ``build`` fails: a trial tells that."""
    if isinstance(task, ReadyMade):
        return {}
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            model = task.build(**arch).eval()
    except Exception as exc:  # the user's own code
        LOG.debug("no size of %s: %s", dict(arch), exc)
        return {}
    found = {"parameters": float(sum(parameter.numel() for parameter in model.parameters()))}
    macs = _macs(task, arch, model)
    return {**found, "macs": macs} if macs else found


def _macs(task: Task, arch: Mapping[str, Scalar], model: object) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        inputs = [
            torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")
            for spec in task.input_specs(**arch)
        ]
        with torch.no_grad(), counter:
            model.to("meta")(*inputs)  # type: ignore[attr-defined]
    except Exception as exc:  # a forward that looks at values, or names its inputs in another order
        LOG.debug("no multiply-accumulates of %s: %s", dict(arch), exc)
        return 0.0
    return counter.get_total_flops() / 2
