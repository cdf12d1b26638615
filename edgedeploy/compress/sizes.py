"""How large an architecture is, found without running it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from edgedeploy.errors import EdgeDeployError
from edgedeploy.interfaces.task import ReadyMade, Task
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar

LOG: Final = logging.getLogger(__name__)


def size_of(task: Task, arch: Mapping[str, Scalar], student: str = "") -> Mapping[str, float]:
    """Parameters of the model that the task builds, or of its ``student`` of that name; and where its forward can be
    followed by shapes alone, multiply-accumulates of one inference and ``depth``: the layers of the longest chain from an
    input to an answer, 1 where there is none. Empty for a task that builds no model, or whose ``build``
    fails: a trial tells that."""
    if isinstance(task, ReadyMade):
        return {}
    import torch

    from edgedeploy.compress.student import student_of

    try:
        with torch.random.fork_rng(devices=[]):
            model = (student_of(task, student, arch) if student else task.build(**arch)).eval()
            parameters = float(sum(parameter.numel() for parameter in model.parameters()))
    except Exception as exc:  # the user's own code
        LOG.debug("no size of %s: %s", dict(arch), exc)
        return {}
    return {"parameters": parameters, **_followed(task, arch, model)}


def widths_of(task: Task, arch: Mapping[str, Scalar], width: float) -> tuple[int, ...]:
    """Channels of each layer of the task's model when it is pruned to a uniform ``width``. Empty for a task that builds no
    model, and for one that cannot be pruned so: a trial tells that."""
    if isinstance(task, ReadyMade):
        return ()
    import torch

    from edgedeploy.compress.prune import channel_widths, prune
    from edgedeploy.compress.shaped import one_case

    try:
        with torch.random.fork_rng(devices=[]):
            pruned = prune(task.build(**arch).eval(), one_case(task, arch), width)
    except Exception as exc:  # the user's own code, or no network of that width
        LOG.debug("no widths of %s at %g: %s", dict(arch), width, exc)
        return ()
    return tuple(channel_widths(pruned).values())


def shapes_of(task: Task, arch: Mapping[str, Scalar], shrink: Shrink) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the parameters that ``shrink`` leaves of the task's model. The first blocks go, where a variant
    chooses them by cases: how many is the same. Empty for a task that builds no model, and for one that cannot be made
    smaller so: a trial tells that."""
    if isinstance(task, ReadyMade):
        return ()
    import torch

    from edgedeploy.compress.shaped import one_case
    from edgedeploy.compress.shrink.apply import shrunk

    try:
        with torch.random.fork_rng(devices=[]):
            smaller = shrunk(task.build(**arch).eval(), shrink, one_case(task, arch), None)
    except Exception as exc:  # the user's own code, or no network of that share
        LOG.debug("no shapes of %s with %s: %s", dict(arch), shrink.label, exc)
        return ()
    return tuple((name, tuple(tensor.shape)) for name, tensor in smaller.named_parameters())


def _followed(task: Task, arch: Mapping[str, Scalar], model: Any) -> Mapping[str, float]:
    import torch

    from edgedeploy.compress.chain import Chain
    from edgedeploy.reference.calling import call, flat_tensors, plain_model

    try:
        inputs = {
            spec.name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")
            for spec in task.input_specs(**arch)
        }
        shapes = _hollow(plain_model(model))
        chain = Chain(inputs)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), chain:
            answers = flat_tensors(call(shapes, inputs))
    except Exception as exc:  # a forward that looks at values, or answers with something else than tensors
        LOG.debug("no multiply-accumulates of %s: %s", dict(arch), exc)
        return {}
    return {"macs": chain.macs, "depth": float(max(1, chain.longest(answers) or 0))} if chain.macs else {}


def _hollow(model: Any) -> Any:
    """The model without numbers, as a copy, for a task may hold on to the module that it built. Scripted ones lose theirs:
    torch does not move copies of them."""
    from torch.jit import ScriptModule

    from edgedeploy.reference.copies import copied

    scripted = any(isinstance(module, ScriptModule) for module in model.modules())
    return (model if scripted else copied(model)).to("meta")


def least_weights(task: Task, arch: Mapping[str, Scalar], width: float) -> int | None:
    """Weights of convolutions and linear layers of the architecture at a uniform ``width``, each counted once; of the whole
    one where it cannot be pruned, which no variant of that width then is. None where the model cannot be built."""
    import torch

    from edgedeploy.compress.prune import prune
    from edgedeploy.compress.shaped import built, example_inputs

    try:
        with torch.random.fork_rng(devices=[]):
            model = built(task, arch)
    except EdgeDeployError as exc:
        LOG.debug("no weights of %s: %s", dict(arch), exc)
        return None
    try:
        if width < 1.0:
            model = prune(model, example_inputs(task.input_specs(**arch)), width)
    except EdgeDeployError as exc:
        LOG.debug("%s is not pruned: %s", dict(arch), exc)
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    weights = {id(module.weight): module.weight for module in model.modules() if isinstance(module, kinds)}
    return sum(weight.numel() for weight in weights.values())
