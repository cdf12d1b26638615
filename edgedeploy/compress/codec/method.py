"""One model by one of the ways that a search names: packed, and decoded again into a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.compress.codec.coded import Coded, Numbers, aside, int8, is_weight, stepped, wound
from edgedeploy.compress.codec.container import Coder, Packed, from_bytes, to_bytes
from edgedeploy.compress.codec.folding import folded
from edgedeploy.compress.codec.shipping import within
from edgedeploy.compress.recalibration import training_batches
from edgedeploy.compress.shaped import one_case
from edgedeploy.errors import DataError, Unsupported
from edgedeploy.interfaces.task import Recoverable, Task
from edgedeploy.records.storage import Storage
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.copies import copied

if TYPE_CHECKING:
    from torch import nn

BATCHES: Final = 8
"""Batches of training that the curvature is taken from."""

DECODINGS: Final = 9
MOST_DECODING_NS: Final = 5_000_000_000
"""After which no further decoding begins."""


def shipped(model: nn.Module, task: Task, arch: Mapping[str, Scalar], storage: Storage) -> tuple[bytes, nn.Module]:
    """The file that is shipped, and the network that its weights make, in evaluation mode; ``model`` stays as it is.

    The curvature of ``uniform:12x`` comes from batches of training, or the calibration cases of a task that cannot train.
    Raises ``Unsupported`` for fewer bytes than weights can be had in, ``TargetUnavailable`` where zstd is not installed.
    """
    flat = folded(model, one_case(task, arch)).requires_grad_(True)  # a copy: curvature is asked of frozen layers too
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in flat.state_dict().items()}
    if storage.method == "ratio":
        most_bytes = int(float32_bytes(model) / storage.size)
        packed = within(flat, _inputs(task, arch), most_bytes, seed=0)
    else:
        coder: Coder = "zstd" if storage.method == "int8-zstd" else "rans"
        packed = Packed({name: _one(array, storage) for name, array in arrays.items()}, coder)
    try:
        data = to_bytes(packed)
    except DataError as exc:  # of this way and these weights: the variant's own failure
        raise Unsupported(exc.asked, exc.found, exc.remedy) from None
    return data, decoded(flat, from_bytes(data)[1])


def decode_times_ns(data: bytes) -> tuple[int, ...]:
    """CPU times of this thread for decoding a packed file: up to :data:`DECODINGS` after one that is not counted, fewer of
    what takes long. What is decoded is dropped each time, so that memory stays that of one."""
    found: list[int] = []
    from_bytes(data)
    while len(found) < DECODINGS and sum(found) < MOST_DECODING_NS:
        started_ns = time.thread_time_ns()
        from_bytes(data)
        found.append(time.thread_time_ns() - started_ns)
    return tuple(found)


def float32_bytes(model: nn.Module) -> int:
    """What the model's parameters take in float32: a ratio is of that."""
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def decoded(model: nn.Module, arrays: Mapping[str, Numbers]) -> nn.Module:
    """A copy of ``model`` with these weights, in evaluation mode."""
    import torch

    twin: nn.Module = copied(model)
    twin.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return twin.eval()


def _one(array: Numbers, storage: Storage) -> Coded:
    if not is_weight(array):
        return aside(array)
    if storage.method == "int8-zstd":
        return int8(array)
    if storage.method == "hyper":
        return wound(array, storage.size)
    return stepped(array, max(storage.size * float(array.std()), 1e-30))


def _inputs(task: Task, arch: Mapping[str, Scalar]) -> list[Any]:
    import torch

    if isinstance(task, Recoverable):
        return [batch.inputs for batch in training_batches(task, arch, BATCHES, task.recovery_recipe.seed)]
    cases = task.cases("calibration")
    if not cases:
        found = f"task {task.name!r} has no training batches and no calibration cases"
        raise Unsupported("weights within a number of bytes", found, "Give it some, or ship another way")
    feeds = [task.inputs(case, **arch) for case in cases]
    return [{name: torch.from_numpy(value) for name, value in feed.items()} for feed in feeds]
