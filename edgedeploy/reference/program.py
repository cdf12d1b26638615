"""The torch program beside the ONNX reference, for targets that convert from torch.

No constructor makes the shapes of a pruned network, and a resumed study has no module in memory. An exported program
can be read back without the code that made it, so a build after a restart is the same as before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from edgedeploy.errors import BuildError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.reference.calling import flat_model
from edgedeploy.reference.export import frozen_model
from edgedeploy.reference.translate import translated, untraceable

PROGRAM_FILE: Final = "program.pt2"
CONVERTED: Final = "float-"
"""Prefix of the files that a target keeps beside a program: conversions of it that need not be repeated."""


@runtime_checkable
class FromProgram(Protocol):
    """A target that reads :attr:`BuildRequest.program`. A separate protocol, because other targets need no such
    file."""

    from_program: bool


def export_program(
    model: Any, specs: tuple[TensorSpec, ...], path: Path, sample: Mapping[str, Array] | None = None
) -> None:
    """Write what ``torch.export`` makes of ``model`` at the static shapes of ``specs``, traced on ``sample``, a case of the
    user's own, if there is one. The model is left as it was; in the
    file every tensor is contiguous (:func:`make_contiguous`).

    Its inputs go in by position, in the order of ``specs``; its outputs come as a flat tuple, in the reference's order.

    Raises ``BuildError`` for a model that cannot be traced.
    """
    import torch

    frozen = frozen_model(model)
    _make_contiguous((*frozen.parameters(), *frozen.buffers()))  # before tracing: the graph notes their strides
    feed = sample or random_feed(specs, 0)
    arguments = tuple(torch.from_numpy(np.array(feed[spec.name])) for spec in specs)
    try:
        program = torch.export.export(flat_model(frozen, [spec.name for spec in specs]), arguments)
    except Exception as exc:  # export wraps whatever a foreign forward runs into
        remedy = "The forward has to be traceable with torch.export"
        raise BuildError("export by torch", untraceable(exc), remedy) from exc
    with translated("export by torch", "Replace what it names in the model"):
        make_contiguous(program)
        torch.export.save(program, path)


def forget_conversions(program: Path) -> None:
    """Remove the conversions that targets keep beside a program, so that the next build converts it again."""
    for path in program.parent.glob(f"{CONVERTED}*"):
        path.unlink(missing_ok=True)


def make_contiguous(program: Any) -> None:
    """Give every weight, buffer and constant of an exported program rows that follow each other in memory, in place.

    litert-torch 0.10 copies a tensor of another layout (``channels_last``, in which convolutions train), remembers the
    copy by its memory address and frees it. The next copy of that shape may get the same address and is then replaced
    by the first one's numbers. 10 of 12 conversions of one UNet came out wrong, by 0.00003 to 0.04 of the output.
    """
    _make_contiguous((*program.state_dict.values(), *program.constants.values()))


def _make_contiguous(values: Iterable[Any]) -> None:
    import torch

    for value in values:
        if isinstance(value, torch.Tensor) and not value.is_contiguous():  # constants may be objects of other kinds
            value.data = value.data.contiguous()
