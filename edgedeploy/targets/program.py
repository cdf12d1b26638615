"""The torch program beside the ONNX reference, for targets that convert from torch.

A pruned network has shapes that no constructor makes, and a study that resumes has no module in memory. What torch exports
can be read back without the code that made it, so a build is the same work today and after a restart.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from edgedeploy.artifact import TensorSpec
from edgedeploy.targets.common import translated
from edgedeploy.targets.reference import random_inputs

PROGRAM_FILE: Final = "program.pt2"


@runtime_checkable
class FromProgram(Protocol):
    """A target that reads :attr:`BuildRequest.program`. A protocol of its own because the others need no such file."""

    from_program: bool


def export_program(model: Any, specs: tuple[TensorSpec, ...], path: Path) -> None:
    """Write what ``torch.export`` makes of ``model`` at the static shapes of ``specs``. The model is left as it was.

    Raises ``BuildError`` for a model that cannot be traced.
    """
    import torch

    frozen = copy.deepcopy(model).eval().cpu()
    feed = random_inputs(specs)
    arguments = tuple(torch.from_numpy(np.array(feed[spec.name])) for spec in specs)
    with translated("export by torch", "The forward has to be traceable with torch.export"):
        program = torch.export.export(frozen, arguments)
        torch.export.save(program, path)
